//! A process that stops at the system calls that matter (ptrace(2), seccomp(2)):
//! only these are slowed down.

// UNSAFETY: ptrace(2) and prctl(2) have no safe form in a library in use.
#![expect(unsafe_code)]

use std::collections::HashMap;
use std::ffi::c_void;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};
use std::ptr;
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::Event;
use crate::kedge::SOON;

// Linux, include/uapi/linux/kvm.h.
const KVM_RUN: u32 = 0xae80;
const KVM_SET_USER_MEMORY_REGION: u32 = 0x4020_ae46;
const KVM_GET_ONE_REG: u32 = 0x4010_aeab;
const KVM_SET_ONE_REG: u32 = 0x4010_aeac;
const KVM_GET_REG_LIST: u32 = 0xc008_aeb0;

const WATCHED: [u32; 5] =
    [KVM_RUN, KVM_SET_USER_MEMORY_REGION, KVM_GET_ONE_REG, KVM_SET_ONE_REG, KVM_GET_REG_LIST];

/// `NT_PRSTATUS`: the general registers.
const NT_PRSTATUS: usize = 1;
/// x0 to x30, sp, pc, pstate (`struct user_pt_regs`).
type Registers = [u64; 34];

const OPTIONS: i32 = libc::PTRACE_O_TRACESECCOMP
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACESYSGOOD
    | libc::PTRACE_O_EXITKILL;

/// Runs a command to its end; how it ended, and what it asked of KVM.
///
/// # Errors
/// It does not start, cannot be traced, or does not end.
pub(super) fn trace(mut command: Command) -> anyhow::Result<(ExitStatus, Vec<Event>)> {
    let mut filter = filter();
    let stop_at_calls = move || stop_at_calls(&mut filter);
    // SAFETY: the closure makes three system calls and allocates nothing.
    unsafe { command.pre_exec(stop_at_calls) };
    let child = command.spawn().context("cannot start the program")?;
    let pid = i32::try_from(child.id())?;
    let _watchdog = Watchdog::new(pid);
    let mut tracer = Tracer { first: pid, events: Vec::new(), pending: HashMap::new() };
    // It stops when it has become the program.
    let (_, status) = wait(pid)?;
    ensure!(libc::WIFSTOPPED(status), "the program is not traced: status {status:#x}");
    ptrace(libc::PTRACE_SETOPTIONS, pid, 0, usize::try_from(OPTIONS)?)?;
    go_on(libc::PTRACE_CONT, pid, 0)?;
    loop {
        let (thread, status) = wait(-1)?;
        if let Some(ended) = tracer.stopped(thread, status)? {
            return Ok((ended, tracer.events));
        }
    }
}

struct Tracer {
    /// The program's first thread.
    first: i32,
    events: Vec<Event>,
    /// What threads are in the middle of: the event's place, and where its value is.
    pending: HashMap<i32, (usize, u64)>,
}

impl Tracer {
    /// Notes why a thread stopped and lets it go on; how the program ended, once it
    /// has.
    fn stopped(&mut self, thread: i32, status: i32) -> anyhow::Result<Option<ExitStatus>> {
        if !libc::WIFSTOPPED(status) {
            return Ok((thread == self.first).then(|| ExitStatus::from_raw(status)));
        }
        let (signal, event) = (libc::WSTOPSIG(status), status >> 16);
        if event == libc::PTRACE_EVENT_SECCOMP {
            let finish = self.begun(thread)?;
            go_on(if finish { libc::PTRACE_SYSCALL } else { libc::PTRACE_CONT }, thread, 0)?;
        } else if signal == libc::SIGTRAP | 0x80 {
            self.done(thread)?;
            go_on(libc::PTRACE_CONT, thread, 0)?;
        } else if event != 0 || signal == libc::SIGSTOP {
            // A thread was made, or begins.
            go_on(libc::PTRACE_CONT, thread, 0)?;
        } else {
            go_on(libc::PTRACE_CONT, thread, signal)?;
        }
        Ok(None)
    }

    /// A thread is about to ask something; whether its answer matters.
    fn begun(&mut self, thread: i32) -> anyhow::Result<bool> {
        let [vcpu, request, argument, ..] = registers(thread)?;
        // The C library may extend its sign.
        let event = match u32::try_from(request & 0xffff_ffff)? {
            KVM_RUN => Event::Run,
            // `struct kvm_userspace_memory_region`: after a slot, flags and an address.
            KVM_SET_USER_MEMORY_REGION => Event::Memory { size: word(thread, argument + 16)? },
            KVM_GET_REG_LIST => Event::List,
            request => {
                // `struct kvm_one_reg`: the register, and where its value is.
                let id = word(thread, argument)?;
                let at = word(thread, argument + 8)?;
                self.pending.insert(thread, (self.events.len(), at));
                match request {
                    KVM_GET_ONE_REG => Event::Get { vcpu, id, value: Ok(Vec::new()) },
                    _ => {
                        let value = read(thread, at, size(id))?;
                        Event::Set { vcpu, id, value, result: Ok(()) }
                    }
                }
            }
        };
        self.events.push(event);
        Ok(self.pending.contains_key(&thread))
    }

    /// A thread has its answer.
    fn done(&mut self, thread: i32) -> anyhow::Result<()> {
        let Some((place, at)) = self.pending.remove(&thread) else { return Ok(()) };
        let answer = registers(thread)?[0].cast_signed();
        let errno = i32::try_from(-answer).unwrap_or(0);
        match self.events.get_mut(place).context("the event was put there")? {
            Event::Get { id, value, .. } if errno == 0 => *value = Ok(read(thread, at, size(*id))?),
            Event::Get { value, .. } => *value = Err(errno),
            Event::Set { result, .. } if errno != 0 => *result = Err(errno),
            _ => {}
        }
        Ok(())
    }
}

/// The size of a register's value in bytes (Linux, Documentation/virt/kvm/api.rst,
/// 4.68).
const fn size(id: u64) -> usize {
    1 << (id >> 52 & 0xf)
}

/// Ends a program that does not end by itself.
struct Watchdog(Option<mpsc::Sender<()>>);

impl Watchdog {
    fn new(pid: i32) -> Self {
        let (over, wait) = mpsc::channel::<()>();
        thread::spawn(move || {
            if wait.recv_timeout(SOON) == Err(mpsc::RecvTimeoutError::Timeout)
                && let Some(pid) = Pid::from_raw(pid)
            {
                // It may have ended just now.
                let _ = kill_process(pid, Signal::KILL);
            }
        });
        Self(Some(over))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.0.take();
    }
}

/// A filter of system calls (Linux, Documentation/userspace-api/seccomp_filter.rst)
/// that has the tracer see the watched ones.
fn filter() -> Vec<libc::sock_filter> {
    /// `seccomp_data.nr`, and the lower half of `seccomp_data.args[1]`.
    const NUMBER: u32 = 0;
    const SECOND_ARGUMENT: u32 = 24;
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let ret = libc::BPF_RET | libc::BPF_K;
    let code = |code: u32| u16::try_from(code).unwrap_or(u16::MAX);
    let step = |what, jt, jf, k| libc::sock_filter { code: code(what), jt, jf, k };
    let watched = u8::try_from(WATCHED.len()).unwrap_or(u8::MAX);
    let ioctl = u32::try_from(libc::SYS_ioctl).unwrap_or(u32::MAX);
    let mut steps = vec![
        step(load, 0, 0, NUMBER),
        step(equal, 0, watched + 1, ioctl),
        step(load, 0, 0, SECOND_ARGUMENT),
    ];
    steps.extend(WATCHED.iter().zip((1..=watched).rev()).map(|(&k, on)| step(equal, on, 0, k)));
    steps.push(step(ret, 0, 0, libc::SECCOMP_RET_ALLOW));
    steps.push(step(ret, 0, 0, libc::SECCOMP_RET_TRACE));
    steps
}

/// In the new process: has its parent trace it, and stop it at the calls of `filter`.
fn stop_at_calls(filter: &mut [libc::sock_filter]) -> io::Result<()> {
    let len = u16::try_from(filter.len()).unwrap_or(0);
    let program = libc::sock_fprog { len, filter: filter.as_mut_ptr() };
    let checked = |done: i64| if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
    // SAFETY: no memory is passed.
    checked(unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) })?;
    // SAFETY: no memory is passed.
    checked(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into())?;
    let program = &raw const program;
    // SAFETY: the kernel reads the program, which is alive, and copies it.
    let done = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, program) };
    checked(done.into())
}

/// Waits until a thread that this one traces stops or ends.
fn wait(pid: i32) -> anyhow::Result<(i32, i32)> {
    let mut status = 0;
    // SAFETY: the kernel writes the status.
    let thread = unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
    if thread < 0 {
        bail!("cannot wait for a traced program: {}", io::Error::last_os_error());
    }
    Ok((thread, status))
}

fn go_on(how: Request, thread: i32, signal: i32) -> anyhow::Result<()> {
    match ptrace(how, thread, 0, usize::try_from(signal)?) {
        // Killed while it was stopped; how it ended is still to come.
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        other => other.context("a traced thread does not go on"),
    }
}

/// What the C library has for ptrace's first parameter.
#[cfg(target_env = "musl")]
type Request = i32;
#[cfg(not(target_env = "musl"))]
type Request = u32;

fn ptrace(request: Request, thread: i32, address: usize, data: usize) -> io::Result<()> {
    // SAFETY: of the requests made here, only PTRACE_GETREGSET has the kernel write: to
    // memory that its caller says is good for it.
    let done = unsafe { libc::ptrace(request, thread, address, data) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn registers(thread: i32) -> anyhow::Result<Registers> {
    let mut registers: Registers = [0; 34];
    let mut place = libc::iovec {
        iov_base: registers.as_mut_ptr().cast::<c_void>(),
        iov_len: size_of_val(&registers),
    };
    ptrace(libc::PTRACE_GETREGSET, thread, NT_PRSTATUS, (&raw mut place).addr())
        .context("a traced thread's registers")?;
    Ok(registers)
}

fn word(thread: i32, at: u64) -> anyhow::Result<u64> {
    Ok(super::number(&read(thread, at, 8)?))
}

/// Memory of the process.
fn read(thread: i32, at: u64, length: usize) -> anyhow::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let to = libc::iovec { iov_base: bytes.as_mut_ptr().cast::<c_void>(), iov_len: length };
    let at = ptr::without_provenance_mut::<c_void>(usize::try_from(at)?);
    let from = libc::iovec { iov_base: at, iov_len: length };
    // SAFETY: the kernel writes to `bytes`, which is as long as `to` says.
    let read = unsafe { libc::process_vm_readv(thread, &raw const to, 1, &raw const from, 1, 0) };
    ensure!(usize::try_from(read) == Ok(length), "memory of a traced process cannot be read");
    Ok(bytes)
}
