//! System calls and ioctls as the host asks for them, and looks into the agent's memory.
//!
//! Calls are raw: libc's `setuid` and its kin would change all threads, the kernel's changes the calling one.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use super::buffers::Buffers;
use super::ops::Shared;
use super::out::refusal;
use super::sys;
use crate::agent_protocol::{CHUNK, IoctlArgument, IoctlRequest, OpError, SyscallOutcome, SyscallRequest, ToHost};

/// `close_range`'s flag that gives the caller a table of descriptors of its own.
const CLOSE_RANGE_UNSHARE: u64 = 2;

/// Makes a call on this thread.
///
/// # Errors
/// A call that would end the agent or pull its two threads apart; no memory for its buffers.
pub fn call(request: &SyscallRequest, shared: &Shared) -> Result<SyscallOutcome, OpError> {
    let op = "syscall";
    if let Some(why) = refused(request, shared) {
        return Err(told(op, &request.number.to_string(), why));
    }
    let mut buffers = Buffers::new(&request.bufs).map_err(|error| refusal(op, b"bufs", &error, ""))?;
    for nested in &request.nested {
        let [parent, child, offset] = [nested.parent, nested.child, nested.offset].map(|number| number as usize);
        if !buffers.link(parent, child, offset) {
            return Err(refusal(op, b"nested", &io::Error::from_raw_os_error(libc::EINVAL), ""));
        }
    }
    let mut args = request.args;
    for (index, slot) in request.ptrs.iter().enumerate() {
        if let (Some(arg), Some(address)) = (args.get_mut(usize::from(*slot)), buffers.address(index)) {
            *arg = address;
        }
    }
    let (ret, errno) = match own_descriptors(request.number, args, shared) {
        Some(answer) => answer,
        None => raw(request.number, args),
    };
    Ok(SyscallOutcome { ret, errno, data: Vec::new(), bufs: buffers.contents() })
}

/// Whether a call that succeeded has moved this thread to another view of the file system.
pub fn moves(request: &SyscallRequest) -> bool {
    const MOUNTS: u64 = libc::CLONE_NEWNS.unsigned_abs() as u64;
    let number = request.number;
    [libc::SYS_chroot, libc::SYS_pivot_root, libc::SYS_setns].contains(&number)
        || number == libc::SYS_unshare && request.args[0] & MOUNTS != 0
}

/// The system call itself: what the kernel returned, −1 and errno where it refused.
fn raw(number: i64, args: [u64; 6]) -> (i64, i32) {
    let [a, b, c, d, e, f] = args;
    // SAFETY: this is what the host asks for; buffers that it passes are ours and followed by pages that nobody may touch.
    let ret = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if ret == 0 && forks(number) {
        // The copy of this process: it must not speak with the host.
        // SAFETY: ends the copy only.
        unsafe { libc::_exit(0) };
    }
    let errno = if ret == -1 { io::Error::last_os_error().raw_os_error().unwrap_or_default() } else { 0 };
    (ret, errno)
}

#[cfg(target_arch = "x86_64")]
fn forks(number: i64) -> bool {
    [libc::SYS_fork, libc::SYS_clone, libc::SYS_clone3].contains(&number)
}

#[cfg(not(target_arch = "x86_64"))]
fn forks(number: i64) -> bool {
    [libc::SYS_clone, libc::SYS_clone3].contains(&number)
}

#[cfg(target_arch = "x86_64")]
fn shares_the_stack(number: i64) -> bool {
    number == libc::SYS_vfork
}

#[cfg(not(target_arch = "x86_64"))]
fn shares_the_stack(_: i64) -> bool {
    false
}

/// Why a call is not made.
fn refused(request: &SyscallRequest, shared: &Shared) -> Option<&'static str> {
    const SHARING: u64 = libc::CLONE_VM.unsigned_abs() as u64;
    const FILES: u64 = libc::CLONE_FILES.unsigned_abs() as u64;
    let [first, _, third, ..] = request.args;
    let (number, is_agent) = (request.number, !shared.is_worker);
    if number == libc::SYS_rt_sigreturn || shares_the_stack(number) {
        return Some("this call would destroy the agent's stack\nhint: `vm:run` starts processes");
    }
    if number == libc::SYS_exit || number == libc::SYS_exit_group && is_agent {
        return Some("this call would end the agent\nhint: a worker's `exit_group` ends that worker only");
    }
    if (number == libc::SYS_execve || number == libc::SYS_execveat) && is_agent {
        return Some(
            "this call would replace the agent\nhint: `vm:run` executes programs; in a worker this call is made",
        );
    }
    if number == libc::SYS_clone && first & SHARING != 0 {
        return Some(
            "a copy that shares the agent's memory would destroy it\nhint: without CLONE_VM the copy ends at once",
        );
    }
    if number == libc::SYS_clone3 {
        let flags = request.ptrs.iter().position(|slot| *slot == 0).and_then(|index| request.bufs[index].first_chunk());
        if flags.is_none_or(|flags| u64::from_ne_bytes(*flags) & SHARING != 0) {
            return Some(
                "expected the arguments in a buffer, without CLONE_VM: a copy that shares the agent's memory would destroy it",
            );
        }
    }
    let unshares = number == libc::SYS_unshare && first & FILES != 0
        || number == libc::SYS_close_range && third & CLOSE_RANGE_UNSHARE != 0;
    unshares.then_some("the agent's threads must share one table of descriptors\nhint: a worker has a table of its own")
}

/// Calls that would close what the agent itself needs: to the host those descriptors are not there.
fn own_descriptors(number: i64, args: [u64; 6], shared: &Shared) -> Option<(i64, i32)> {
    #[cfg(target_arch = "x86_64")]
    let replaces = number == libc::SYS_dup2 || number == libc::SYS_dup3;
    #[cfg(not(target_arch = "x86_64"))]
    let replaces = number == libc::SYS_dup3;
    let (first, last) = match number {
        libc::SYS_close => (args[0], args[0]),
        libc::SYS_close_range => (args[0], args[1]),
        _ if replaces => (args[1], args[1]),
        _ => return None,
    };
    let mut own: Vec<u64> =
        shared.processes.descriptors().into_iter().filter_map(|fd| u64::try_from(fd).ok()).collect();
    own.extend(shared.own.iter().filter_map(|fd| u64::try_from(*fd).ok()));
    own.retain(|fd| (first..=last).contains(fd));
    own.sort_unstable();
    if own.is_empty() {
        return None;
    }
    if number != libc::SYS_close_range {
        return Some((-1, libc::EBADF));
    }
    // The ranges between the descriptors that stay.
    let mut begin = first;
    for end in own.into_iter().chain([last.saturating_add(1)]) {
        if begin < end {
            let (ret, errno) = raw(number, [begin, end - 1, args[2], 0, 0, 0]);
            if ret != 0 {
                return Some((ret, errno));
            }
        }
        begin = end + 1;
    }
    Some((0, 0))
}

/// Makes a call on a thread of its own; the host hears of its end, unless it gives the call up.
///
/// # Errors
/// When no thread can be had.
pub fn call_async(request: u32, call: SyscallRequest, shared: &Arc<Shared>) -> Result<(), OpError> {
    let for_thread = Arc::clone(shared);
    let begun = shared.interrupts.spawn(request, "call", move |working| {
        // SAFETY: gives this thread a root and working directory of its own; failing leaves the ops thread's.
        unsafe { libc::unshare(libc::CLONE_FS) };
        let answer = match self::call(&call, &for_thread) {
            Ok(outcome) => ToHost::Returned(outcome),
            Err(error) => ToHost::Failed(error),
        };
        if !working.given_up() {
            // A host that is gone does not miss it.
            let _ = for_thread.out.send(request, &answer);
        }
    });
    begun.map_err(|error| refusal("syscall_async", b"thread", &error, ""))
}

/// Makes an ioctl on this thread.
///
/// # Errors
/// Offsets outside of the data; no memory for its buffers.
pub fn ioctl(request: &IoctlRequest) -> Result<SyscallOutcome, OpError> {
    let op = "ioctl";
    let mut contents = request.bufs.clone();
    if let IoctlArgument::Data(data) = &request.argument {
        contents.push(data.clone());
    }
    let mut buffers = Buffers::new(&contents).map_err(|error| refusal(op, b"data", &error, ""))?;
    let data = request.bufs.len();
    for (index, offset) in request.ptr_offsets.iter().enumerate() {
        if !buffers.link(data, index, *offset as usize) {
            return Err(refusal(op, b"ptr_offsets", &io::Error::from_raw_os_error(libc::EINVAL), ""));
        }
    }
    let argument = match &request.argument {
        IoctlArgument::Number(number) => *number,
        IoctlArgument::Data(_) => buffers.address(data).unwrap_or_default(),
    };
    let fd = i64::from(request.fd).cast_unsigned();
    let (ret, errno) = raw(libc::SYS_ioctl, [fd, request.command, argument, 0, 0, 0]);
    let mut bufs = buffers.contents();
    let data = bufs.split_off(data).pop().unwrap_or_default();
    Ok(SyscallOutcome { ret, errno, data, bufs })
}

/// Passes on `count` bytes of this process's memory. A pipe takes them: the kernel looks whether they are there.
///
/// # Errors
/// `EFAULT` where memory can't be read. A host that is gone ends it quietly.
pub fn read_memory(address: u64, count: u64, mut piece: impl FnMut(Vec<u8>) -> io::Result<()>) -> Result<(), OpError> {
    let subject = format!("{address:#x}");
    let failed = |error: io::Error| refusal("read_mem", subject.as_bytes(), &error, "");
    let (reading, writing) = sys::pipe().map_err(failed)?;
    sys::set_nonblocking(writing.as_fd()).map_err(failed)?;
    let mut buffer = vec![0; CHUNK];
    let mut done = 0;
    while done < count {
        let wanted = usize::try_from(count - done).unwrap_or(CHUNK).min(CHUNK);
        let at = address.checked_add(done).ok_or_else(|| failed(io::Error::from_raw_os_error(libc::EFAULT)))?;
        // SAFETY: the kernel reads, and refuses what can't be read.
        let taken = unsafe {
            use std::os::fd::AsRawFd;
            libc::syscall(libc::SYS_write, writing.as_raw_fd(), at, wanted)
        };
        let taken = usize::try_from(taken).map_err(|_| failed(io::Error::last_os_error()))?;
        let mut rest = &mut buffer[..taken];
        while !rest.is_empty() {
            let got = sys::read(reading.as_fd(), rest).map_err(failed)?;
            rest = &mut rest[got..];
        }
        if taken == 0 || piece(buffer[..taken].to_vec()).is_err() {
            return Ok(());
        }
        done += taken as u64;
    }
    Ok(())
}

fn told(op: &str, subject: &str, why: &str) -> OpError {
    OpError { op: op.to_owned(), subject: subject.to_owned(), errno: 0, detail: why.to_owned() }
}
