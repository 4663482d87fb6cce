//! Requests on their way to the server, what goes wrong with them, and what the server does.

use super::*;

impl World {
    pub(super) fn swap(&mut self, process: Process, old: String, new: String, purpose: Purpose) {
        self.send(process, Request::Rename(old, new.clone()), Waiting::Swap(purpose, new));
    }

    pub(super) fn send(&mut self, from: Process, request: Request, waiting: Waiting) {
        let began = self.local(from.node);
        let is_noisy = self.faults.requests && !self.calm;
        let is_slow = is_noisy && matches!(request, Request::Fence(_)) && self.random.below(3) == 0;
        let delay = if is_slow { self.random.below(3 * SECOND) } else { self.delay() };
        let errors = match waiting {
            Waiting::Swap(Purpose::Beat, _) if self.faults.often => 4,
            _ if self.faults.often => 12,
            _ => 60,
        };
        if is_noisy && self.random.below(errors) == 0 {
            // An error now; the request lands all the same, at once, much later, or never.
            let reply = Event::Reply { to: from, began, waiting: waiting.clone(), reply: Reply::Error };
            let replied = delay + self.random.below(SECOND);
            self.after(replied, reply);
            let late = match self.random.below(3) {
                0 => delay,
                1 => delay + self.random.below(10 * SECOND),
                _ => return,
            };
            return self.after(late, Event::Land { from, began, request, waiting, wanted: false });
        }
        self.after(delay, Event::Land { from, began, request, waiting, wanted: true });
    }

    pub(super) fn land(&mut self, from: Process, began: Duration, request: Request, waiting: Waiting, wanted: bool) {
        let reachable_from = self.away_until.max(self.nodes[from.node].cut_until);
        if reachable_from > self.now {
            // A hard mount tries until it gets through, and takes a while to notice that it could.
            let at = reachable_from + self.random.below(4 * SECOND);
            return self.at(at, Event::Land { from, began, request, waiting, wanted });
        }
        let is_noisy = self.faults.requests && !self.calm;
        let reply = match &request {
            Request::List(folder, first_half) => {
                let listing = self.server.list(folder).ok();
                let half = |wanted: u64| {
                    let names = listing.iter().flatten().filter(move |name| stable_hash(&[name.as_bytes()]) & 1 == wanted);
                    names.cloned().collect::<Vec<_>>()
                };
                match first_half {
                    None if listing.is_some() => {
                        let request = Request::List(folder.clone(), Some(half(0)));
                        let pause = self.random.below(10_000);
                        return self.after(pause, Event::Land { from, began, request, waiting, wanted });
                    }
                    None => Reply::Names(None),
                    Some(first) => Reply::Names(Some(first.iter().cloned().chain(half(1)).collect())),
                }
            }
            Request::Rename(old, new) => self.rename(old, new),
            Request::Create(name) => {
                self.server.create(name, Some(Vec::new())).ok();
                Reply::Done
            }
            Request::Prepare(user) => {
                self.server.create(&lease_bucket(user), None).ok();
                if self.server.create(&lease_folder(user), None).is_ok() {
                    self.server.create(&LeaseName::FIRST.in_folder_of(user), Some(Vec::new())).ok();
                }
                Reply::Done
            }
            Request::Fence(file) => self.rename(&file.in_nodes(), &file.in_fenced()),
        };
        if !wanted {
            return;
        }
        let is_rename = matches!(request, Request::Rename(..));
        if is_rename && is_noisy && self.random.below(40) == 0 {
            // The reply is lost; the same request again finds nothing.
            let again = SECOND / 2 + self.random.below(SECOND);
            return self.after(again, Event::Land { from, began, request, waiting, wanted });
        }
        let delay = self.delay();
        self.after(delay, Event::Reply { to: from, began, waiting, reply });
    }

    fn rename(&mut self, old: &str, new: &str) -> Reply {
        if self.server.rename(old, new).is_err() {
            return Reply::Missing;
        }
        let name = |path: &str| path.rsplit_once('/').and_then(|(_, name)| name.parse::<LeaseName>().ok());
        if let (Some(from), Some(to), Some(user)) = (name(old), name(new), self.user_of(old)) {
            let key = (user.clone(), to.epoch);
            self.history.entry(key).or_insert(from);
        }
        Reply::Done
    }

    fn user_of(&self, path: &str) -> Option<&UserName> {
        let (folder, _) = path.rsplit_once('/')?;
        self.folders.iter().position(|listed| listed == folder).and_then(|index| self.users.get(index))
    }
}
