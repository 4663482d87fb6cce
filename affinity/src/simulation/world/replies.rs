//! What a node makes of the replies it hears.

use super::*;

impl World {
    pub(super) fn reply(&mut self, to: Process, began: Duration, waiting: Waiting, reply: Reply) -> Result<(), String> {
        let ended = self.local(to.node);
        match (waiting, reply) {
            (Waiting::Swap(purpose, new), Reply::Missing) => {
                let folder = new.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
                self.send(to, Request::List(folder, None), Waiting::Confirmation(purpose, new));
                Ok(())
            }
            (Waiting::Swap(purpose, _), Reply::Done) => self.swapped(to, purpose, Answer::Swapped(Swapped::Won)),
            (Waiting::Confirmation(purpose, new), Reply::Names(Some(names))) => {
                let won = new.rsplit_once('/').is_some_and(|(_, name)| names.iter().any(|listed| listed == name));
                self.swapped(to, purpose, Answer::Swapped(if won { Swapped::Won } else { Swapped::Lost }))
            }
            (Waiting::Swap(purpose, _) | Waiting::Confirmation(purpose, _), _) => self.swapped(to, purpose, Answer::Unknown),
            (Waiting::Lease(user), reply) => self.lease_listed(to, &user, reply),
            (Waiting::Nodes(user), Reply::Names(Some(names))) => self.nodes_listed(to, &user, began, ended, &names),
            (Waiting::Prepared(user), Reply::Done) => {
                if let Some(Job::Acquire(acquire)) = self.running(to).jobs.get_mut(&user) {
                    acquire.prepared();
                }
                self.go_on(to, &user)
            }
            (Waiting::Nodes(user) | Waiting::Prepared(user), _) => {
                self.give_up(to, &user);
                Ok(())
            }
            (Waiting::Roll, reply) => {
                self.rolled(to, began, ended, reply);
                Ok(())
            }
            (Waiting::Fence, _) => Ok(()),
            (Waiting::JoinListing, Reply::Names(Some(names))) => {
                self.join(to, &names);
                Ok(())
            }
            (Waiting::JoinClearing, _) => {
                self.send(to, Request::List(NODES.into(), None), Waiting::JoinListing);
                Ok(())
            }
            (Waiting::JoinCreating, Reply::Done) => {
                self.beat(to);
                Ok(())
            }
            (Waiting::JoinListing | Waiting::JoinCreating, _) => {
                self.crash(to.node);
                Ok(())
            }
        }
    }

    fn join(&mut self, process: Process, names: &[String]) {
        let me = self.running(process).me.clone();
        let (files, _) = sort_out::<NodeFile>(names);
        // The lock of this host proves that they are gone.
        if let Some(older) = files.iter().find(|file| file.holder.node == me.node && file.holder != me) {
            self.send(process, Request::Rename(older.in_nodes(), older.in_fenced()), Waiting::JoinClearing);
        } else {
            let file = self.running(process).beat.current().in_nodes();
            self.send(process, Request::Create(file), Waiting::JoinCreating);
        }
    }

    fn swapped(&mut self, process: Process, purpose: Purpose, answer: Answer) -> Result<(), String> {
        match purpose {
            Purpose::Beat => {
                self.beaten(process, answer);
                Ok(())
            }
            Purpose::Take(user) => {
                if let Some(Job::Acquire(acquire)) = self.running(process).jobs.get_mut(&user) {
                    acquire.swapped(answer);
                }
                self.go_on(process, &user)
            }
            Purpose::Release(user) => {
                if let Some(Job::Release(release)) = self.running(process).jobs.get_mut(&user) {
                    release.swapped(answer);
                }
                self.go_on(process, &user)
            }
        }
    }

    fn beaten(&mut self, process: Process, answer: Answer) {
        let (self_limit, beat, now) = (self.timings.self_limit(), self.timings.beat(), self.local(process.node));
        let running = self.running(process);
        match running.beat.answered(answer, self_limit) {
            BeatOutcome::ValidUntil(until) => {
                running.valid_until = running.valid_until.max(until);
                if !std::mem::replace(&mut running.joined, true) {
                    self.after(0, Event::WatchDue(process));
                    self.after(0, Event::JobDue(process));
                }
            }
            BeatOutcome::TryAgain => {}
            // It drops everything, and comes back as somebody else.
            BeatOutcome::Fenced => return self.crash(process.node),
        }
        let began = self.running(process).beat_began;
        let pause = beat.saturating_sub(now - began).max(beat_gap_min(beat));
        self.after_local(process, pause, Event::BeatDue(process));
    }

    fn lease_listed(&mut self, process: Process, user: &UserName, reply: Reply) -> Result<(), String> {
        let Reply::Names(listing) = reply else {
            self.give_up(process, user);
            return Ok(());
        };
        let names = listing.map(|listing| sort_out::<LeaseName>(&listing).0);
        let running = self.running(process);
        match running.jobs.get_mut(user) {
            Some(Job::Acquire(acquire)) => acquire.lease_listed(names.as_deref()),
            Some(Job::Release(release)) => release.lease_listed(&names.unwrap_or_default()),
            None => {}
        }
        self.go_on(process, user)
    }

    fn nodes_listed(
        &mut self,
        process: Process,
        user: &UserName,
        began: Duration,
        ended: Duration,
        names: &[String],
    ) -> Result<(), String> {
        let (files, _) = sort_out::<NodeFile>(names);
        let beat = self.timings.beat();
        let running = self.running(process);
        let suspects = running.watch.suspects();
        if let Some(Job::Acquire(acquire)) = running.jobs.get_mut(user) {
            acquire.nodes_listed(began, ended, &files, &suspects, beat);
        }
        self.go_on(process, user)
    }

    fn rolled(&mut self, process: Process, began: Duration, ended: Duration, reply: Reply) {
        let timings = self.timings.clone();
        let running = self.running(process);
        let Reply::Names(Some(names)) = reply else {
            running.watch.failed();
            running.roll = None;
            return self.after_local(process, timings.beat(), Event::WatchDue(process));
        };
        let (files, _) = sort_out::<NodeFile>(&names);
        let roll = match running.roll.take() {
            Some(mut roll) => {
                roll.add(began, ended, &files);
                roll
            }
            None => Roll::new(began, ended, &files),
        };
        if running.watch.misses_somebody(&roll) && !roll.is_proof(timings.beat()) && !roll.is_long() {
            running.roll = Some(roll);
            return self.send(process, Request::List(NODES.into(), None), Waiting::Roll);
        }
        for sighting in running.watch.listed(&roll, &timings) {
            if let Sighting::Suspect(file) = sighting {
                self.send(process, Request::Fence(file), Waiting::Fence);
            }
        }
        self.after_local(process, timings.beat(), Event::WatchDue(process));
    }
}
