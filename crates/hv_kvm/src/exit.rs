//! What `KVM_RUN` says in `struct kvm_run` when it returns, as an [`Exit`]
//! (Linux, Documentation/virt/kvm/api.rst, section 5).
//!
//! kvm-ioctls decodes most of it, but not what arm64 adds; and one reader of the
//! union is simpler than two.

// UNSAFETY: `kvm_run` is a C union.
#![expect(unsafe_code)]

use kedge_guest_memory::GuestAddress;
use kedge_hv::{Conduit, Exit, SystemEvent};
use kedge_ids::usize_from;
use kvm_bindings::{
    KVM_EXIT_ARM_NISV, KVM_EXIT_FAIL_ENTRY, KVM_EXIT_FAIL_ENTRY_CPU_UNSUPPORTED,
    KVM_EXIT_HYPERCALL, KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_INTR, KVM_EXIT_MMIO,
    KVM_EXIT_SYSTEM_EVENT, KVM_HYPERCALL_EXIT_SMC, KVM_SYSTEM_EVENT_CRASH, KVM_SYSTEM_EVENT_RESET,
    KVM_SYSTEM_EVENT_RESET_FLAG_PSCI_RESET2, KVM_SYSTEM_EVENT_SHUTDOWN,
    KVM_SYSTEM_EVENT_SHUTDOWN_FLAG_PSCI_OFF2, KVM_SYSTEM_EVENT_SUSPEND, KVM_SYSTEM_EVENT_WAKEUP,
    kvm_run,
};

/// A 64-byte load or store outside memory (Linux 7.0), told like `KVM_EXIT_ARM_NISV`
/// and younger than kvm-bindings.
const KVM_EXIT_ARM_LDST64B: u32 = 42;

// What every read of the union below rests on: its members are plain integers, for
// which any bytes are a value, and all of it lies within the mapping.

/// Why `KVM_RUN` returned successfully.
pub(crate) fn decode(run: &mut kvm_run) -> Exit<'_> {
    let reason = run.exit_reason;
    let exit = &mut run.__bindgen_anon_1;
    match reason {
        KVM_EXIT_MMIO => {
            // SAFETY: integers, see above.
            let mmio = unsafe { &mut exit.mmio };
            let (address, len) = (GuestAddress(mmio.phys_addr), mmio.len);
            match (mmio.data.get_mut(..usize_from(len.into())), mmio.is_write) {
                (Some(data), 0) => Exit::MmioRead { address, data },
                (Some(data), _) => Exit::MmioWrite { address, data },
                (None, _) => {
                    Exit::Failed { reason: format!("KVM reports an access of {len} bytes") }
                }
            }
        }
        KVM_EXIT_ARM_NISV | KVM_EXIT_ARM_LDST64B => {
            // SAFETY: integers, see above.
            let nisv = unsafe { exit.arm_nisv };
            Exit::Undecoded { address: GuestAddress(nisv.fault_ipa), syndrome: nisv.esr_iss }
        }
        KVM_EXIT_HYPERCALL => {
            // SAFETY: integers, see above.
            let call = unsafe { exit.hypercall };
            // SAFETY: integers, see above.
            hypercall(call.nr, unsafe { call.__bindgen_anon_1.flags })
        }
        KVM_EXIT_SYSTEM_EVENT => {
            // SAFETY: integers, see above.
            let event = unsafe { exit.system_event };
            // SAFETY: integers, see above. Valid whatever `ndata` says: KVM zeroes it
            // first, and kernels before 5.19 put their flags there and no count.
            let flags = unsafe { event.__bindgen_anon_1.data[0] };
            system_event(event.type_, flags)
        }
        KVM_EXIT_INTR => Exit::Interrupted,
        KVM_EXIT_FAIL_ENTRY => {
            // SAFETY: integers, see above.
            let entry = unsafe { exit.fail_entry };
            failed_entry(entry.hardware_entry_failure_reason, entry.cpu)
        }
        KVM_EXIT_INTERNAL_ERROR => {
            // SAFETY: integers, see above.
            let suberror = unsafe { exit.internal.suberror };
            Exit::Failed { reason: format!("KVM met internal error {suberror}") }
        }
        other => {
            Exit::Failed { reason: format!("KVM stopped for reason {other}, unknown on arm64") }
        }
    }
}

fn hypercall<'a>(nr: u64, flags: u64) -> Exit<'a> {
    let smc = flags & u64::from(KVM_HYPERCALL_EXIT_SMC) != 0;
    match u32::try_from(nr) {
        Ok(function) => {
            Exit::Hypercall { function, conduit: if smc { Conduit::Smc } else { Conduit::Hvc } }
        }
        Err(_) => Exit::Failed { reason: format!("KVM reports a call of function {nr:#x}") },
    }
}

fn system_event<'a>(type_: u32, flags: u64) -> Exit<'a> {
    let has = |flag: u32| flags & u64::from(flag) != 0;
    Exit::System(match type_ {
        KVM_SYSTEM_EVENT_SHUTDOWN if has(KVM_SYSTEM_EVENT_SHUTDOWN_FLAG_PSCI_OFF2) => {
            SystemEvent::Off2
        }
        KVM_SYSTEM_EVENT_SHUTDOWN => SystemEvent::Off,
        KVM_SYSTEM_EVENT_RESET if has(KVM_SYSTEM_EVENT_RESET_FLAG_PSCI_RESET2) => {
            SystemEvent::Reset2
        }
        KVM_SYSTEM_EVENT_RESET => SystemEvent::Reset,
        KVM_SYSTEM_EVENT_CRASH => SystemEvent::Crash,
        KVM_SYSTEM_EVENT_WAKEUP => SystemEvent::Wakeup,
        KVM_SYSTEM_EVENT_SUSPEND => SystemEvent::Suspend,
        other => {
            return Exit::Failed {
                reason: format!("KVM reports system event {other}, unknown on arm64"),
            };
        }
    })
}

fn failed_entry<'a>(why: u64, cpu: u32) -> Exit<'a> {
    let reason = if why & u64::from(KVM_EXIT_FAIL_ENTRY_CPU_UNSUPPORTED) != 0 {
        format!("host CPU {cpu} has other performance monitors than the vCPU was given")
    } else {
        format!("host CPU {cpu} could not enter the guest: reason {why:#x}")
    };
    Exit::Failed { reason }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn returned(exit_reason: u32) -> kvm_run {
        kvm_run { exit_reason, ..Default::default() }
    }

    fn event(type_: u32, flags: u64) -> kvm_run {
        let mut run = returned(KVM_EXIT_SYSTEM_EVENT);
        run.__bindgen_anon_1.system_event.type_ = type_;
        run.__bindgen_anon_1.system_event.__bindgen_anon_1.flags = flags;
        run
    }

    fn assert_decodes(mut run: kvm_run, expected: &Expect) {
        expected.assert_eq(&format!("{:?}", decode(&mut run)));
    }

    #[test]
    fn a_store_carries_its_bytes() {
        let mut run = returned(KVM_EXIT_MMIO);
        run.__bindgen_anon_1.mmio.phys_addr = 0x900_0000;
        run.__bindgen_anon_1.mmio.data = [1, 2, 3, 4, 5, 6, 7, 8];
        run.__bindgen_anon_1.mmio.len = 4;
        run.__bindgen_anon_1.mmio.is_write = 1;
        assert_decodes(
            run,
            &expect!["MmioWrite { address: GuestAddress(150994944), data: [1, 2, 3, 4] }"],
        );
    }

    #[test]
    fn the_answer_to_a_load_goes_where_kvm_looks_for_it() {
        let mut run = returned(KVM_EXIT_MMIO);
        run.__bindgen_anon_1.mmio.len = 2;
        let Exit::MmioRead { data, .. } = decode(&mut run) else { unreachable!("a load") };
        data.copy_from_slice(&[0xaa, 0xbb]);
        // SAFETY: integers, any bytes are a value.
        let mmio = unsafe { run.__bindgen_anon_1.mmio };
        assert_eq!(mmio.data, [0xaa, 0xbb, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn an_access_too_long_for_kvms_buffer_is_a_failure() {
        let mut run = returned(KVM_EXIT_MMIO);
        run.__bindgen_anon_1.mmio.len = 9;
        assert_decodes(run, &expect![[r#"Failed { reason: "KVM reports an access of 9 bytes" }"#]]);
    }

    #[test]
    fn accesses_without_a_syndrome_are_undecoded() {
        let mut run = returned(KVM_EXIT_ARM_NISV);
        run.__bindgen_anon_1.arm_nisv.esr_iss = 0x46;
        run.__bindgen_anon_1.arm_nisv.fault_ipa = 0x1008;
        assert_decodes(run, &expect!["Undecoded { address: GuestAddress(4104), syndrome: 70 }"]);
        run.exit_reason = KVM_EXIT_ARM_LDST64B;
        assert_decodes(run, &expect!["Undecoded { address: GuestAddress(4104), syndrome: 70 }"]);
    }

    #[test]
    fn a_forwarded_call_names_its_function_and_its_instruction() {
        let mut run = returned(KVM_EXIT_HYPERCALL);
        run.__bindgen_anon_1.hypercall.nr = 0xc600_0040;
        assert_decodes(run, &expect!["Hypercall { function: 3321888832, conduit: Hvc }"]);
        run.__bindgen_anon_1.hypercall.__bindgen_anon_1.flags = 1;
        assert_decodes(run, &expect!["Hypercall { function: 3321888832, conduit: Smc }"]);
    }

    #[test]
    fn flags_tell_the_second_calls_from_the_first() {
        let events = [(1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (4, 0), (5, 0)];
        let names = events.map(|(type_, flags)| format!("{:?}", decode(&mut event(type_, flags))));
        expect![
            "System(Off), System(Off2), System(Reset), System(Reset2), System(Crash), \
             System(Wakeup), System(Suspend)"
        ]
        .assert_eq(&names.join(", "));
    }

    #[test]
    fn failures_say_what_kvm_says() {
        assert_decodes(
            event(6, 0),
            &expect![[r#"Failed { reason: "KVM reports system event 6, unknown on arm64" }"#]],
        );
        assert_decodes(
            returned(KVM_EXIT_INTERNAL_ERROR),
            &expect![[r#"Failed { reason: "KVM met internal error 0" }"#]],
        );
        assert_decodes(
            returned(99),
            &expect![[r#"Failed { reason: "KVM stopped for reason 99, unknown on arm64" }"#]],
        );
    }

    #[test]
    fn a_cpu_that_does_not_fit_is_named() {
        let mut run = returned(KVM_EXIT_FAIL_ENTRY);
        run.__bindgen_anon_1.fail_entry.cpu = 5;
        run.__bindgen_anon_1.fail_entry.hardware_entry_failure_reason = 1;
        assert_decodes(
            run,
            &expect![[
                r#"Failed { reason: "host CPU 5 has other performance monitors than the vCPU was given" }"#
            ]],
        );
    }
}
