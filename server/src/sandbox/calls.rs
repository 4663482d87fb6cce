//! System calls that no mail server makes, refused by the kernel (seccomp): each would turn a hole in this program into more.
//!
//! Only these are refused, with EPERM: a list of all that libraries may call would break with their next version. On x86-64, calls of the x32 kind
//! are not covered; kernels of distributions don't take them.
//!
//! Invariants, each with the test that guards it:
//! - what is refused fails, and the rest goes on (`a_refused_call_fails_and_others_go_on`)
//! - every thread of a node has the filter (`a_node_in_its_sandbox_can_open_nothing_outside`)

use std::collections::BTreeMap;

use anyhow::Context;
use libc::{
    EPERM, SYS_acct, SYS_add_key, SYS_adjtimex, SYS_bpf, SYS_chroot, SYS_clock_adjtime, SYS_clock_settime, SYS_delete_module, SYS_execve,
    SYS_execveat, SYS_fanotify_init, SYS_finit_module, SYS_fsconfig, SYS_fsmount, SYS_fsopen, SYS_fspick, SYS_init_module,
    SYS_io_uring_enter, SYS_io_uring_register, SYS_io_uring_setup, SYS_kcmp, SYS_kexec_file_load, SYS_kexec_load, SYS_keyctl, SYS_mount,
    SYS_mount_setattr, SYS_move_mount, SYS_open_by_handle_at, SYS_open_tree, SYS_perf_event_open, SYS_personality, SYS_pidfd_getfd,
    SYS_pivot_root, SYS_process_vm_readv, SYS_process_vm_writev, SYS_ptrace, SYS_quotactl, SYS_quotactl_fd, SYS_reboot, SYS_request_key,
    SYS_setdomainname, SYS_sethostname, SYS_setns, SYS_settimeofday, SYS_swapoff, SYS_swapon, SYS_syslog, SYS_umount2, SYS_unshare,
    SYS_userfaultfd, SYS_vhangup, c_long,
};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// What is refused.
const REFUSED: &[c_long] = &[
    // Other processes: their memory, their files, their running.
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_pidfd_getfd,
    SYS_kcmp,
    // Other programs. Settings that need one are refused together with the sandbox.
    SYS_execve,
    SYS_execveat,
    // What is mounted, and ways around what may be opened.
    SYS_mount,
    SYS_umount2,
    SYS_pivot_root,
    SYS_move_mount,
    SYS_open_tree,
    SYS_fsopen,
    SYS_fsconfig,
    SYS_fsmount,
    SYS_fspick,
    SYS_mount_setattr,
    SYS_chroot,
    SYS_open_by_handle_at,
    SYS_fanotify_init,
    SYS_quotactl,
    SYS_quotactl_fd,
    // Namespaces, in which one is root.
    SYS_unshare,
    SYS_setns,
    // The kernel itself, and its parts with a history of holes.
    SYS_kexec_load,
    SYS_kexec_file_load,
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
    SYS_bpf,
    SYS_perf_event_open,
    SYS_userfaultfd,
    SYS_io_uring_setup,
    SYS_io_uring_enter,
    SYS_io_uring_register,
    SYS_keyctl,
    SYS_add_key,
    SYS_request_key,
    SYS_personality,
    // The host.
    SYS_reboot,
    SYS_swapon,
    SYS_swapoff,
    SYS_acct,
    SYS_sethostname,
    SYS_setdomainname,
    SYS_settimeofday,
    SYS_clock_settime,
    SYS_clock_adjtime,
    SYS_adjtimex,
    SYS_syslog,
    SYS_vhangup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// Refuses them to the whole process for ever: also to threads that run already, as the allocator's do.
pub fn refuse() -> anyhow::Result<()> {
    seccompiler::apply_filter_all_threads(&filter()?).context("the kernel takes no filter of system calls (seccomp)")
}

fn filter() -> anyhow::Result<BpfProgram> {
    let rules: BTreeMap<_, _> = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    let refused = SeccompAction::Errno(u32::try_from(EPERM)?);
    let arch = std::env::consts::ARCH.try_into().context("no filter of system calls for this processor")?;
    Ok(SeccompFilter::new(rules, SeccompAction::Allow, refused, arch)?.try_into()?)
}

#[cfg(test)]
mod tests {
    use rustix::{
        io::Errno,
        process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open},
    };

    use super::*;

    #[test]
    fn a_refused_call_fails_and_others_go_on() {
        // For a thread of its own: a filter can't be taken off again.
        let tried = std::thread::spawn(|| {
            let me = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
            let own_file = || pidfd_getfd(&me, 0, PidfdGetfdFlags::empty()).map(drop);
            let run = || std::process::Command::new("/bin/true").status().map_err(|error| error.kind());
            let (file_before, run_before) = (own_file(), run().is_ok());
            seccompiler::apply_filter(&filter().unwrap()).unwrap();
            let others = std::fs::read("/proc/self/status").is_ok() && std::thread::spawn(|| 1).join().is_ok_and(|one| one == 1);
            (file_before, own_file(), run_before, run(), others)
        });
        let (file_before, file_after, run_before, run_after, others) = tried.join().unwrap();
        assert_eq!((file_before, file_after), (Ok(()), Err(Errno::PERM)));
        assert!(run_before && others);
        assert_eq!(run_after.err(), Some(std::io::ErrorKind::PermissionDenied));
    }
}
