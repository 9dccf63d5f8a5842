//! The baselines of some fleets, as recorded on real kernels.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod recorded;

use std::fmt::Write as _;

use expect_test::{Expect, expect};
use kedge_diag::report;
use kedge_firmware::{Baseline, FoundIdReg, GuestAbi, HostAbi, IdPromise, baseline};
use recorded::{KERNELS, host, hosts};

fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap()
}

/// Whether some host shows a register otherwise by itself.
fn is_set(hosts: &[(String, HostAbi)], features: &[String], promise: &IdPromise) -> bool {
    hosts.iter().any(|(_, host)| {
        let cpu = host.cpu_with(features);
        let own = cpu.id_register(promise.id).map_or(0, FoundIdReg::shown);
        (own ^ promise.value.0) & promise.mask.0 != 0
    })
}

/// A baseline for readers; of the ID registers, those that some host has to be told.
fn text(hosts: &[(String, HostAbi)], Baseline { abi, losses }: &Baseline) -> String {
    let cpu = &abi.cpu;
    let features = cpu.features.clone().unwrap_or_default();
    let mut text = format!("{}\n", abi.about);
    writeln!(text, "firmware {}\nlevels {}", json(&abi.firmware), json(&abi.levels)).unwrap();
    writeln!(text, "machine {}", json(&abi.machine)).unwrap();
    writeln!(text, "features {features:?}, lengths {:?}", cpu.sve_lengths).unwrap();
    writeln!(text, "{} ID registers; {:?}", cpu.id_registers.len(), cpu.implementation).unwrap();
    let set = cpu.id_registers.iter().filter(|promise| is_set(hosts, &features, promise));
    for IdPromise { name, value, mask, .. } in set {
        writeln!(text, "{name} {value}, mask {mask}").unwrap();
    }
    for varying in &cpu.varying {
        writeln!(text, "varies: {} {}: {}", varying.name, varying.mask, varying.reason).unwrap();
    }
    for loss in losses {
        writeln!(text, "lost: {}: {} {}", loss.subject, loss.host, loss.reason).unwrap();
    }
    text
}

fn is(hosts: &[(String, HostAbi)], expected: &Expect) {
    expected.assert_eq(&text(hosts, &baseline(hosts).unwrap()));
}

fn is_refused(hosts: &[(String, HostAbi)], expected: &Expect) {
    expected.assert_eq(&report(&baseline(hosts).unwrap_err()));
}

#[test]
fn nothing_varies_over_three_kernels_on_one_cpu() {
    is(
        &hosts("neoverse-n1", &["6.1", "6.12", "7.2"]),
        &expect![[r#"
            What each of these hosts can give: neoverse-n1-6.1, neoverse-n1-6.12, neoverse-n1-7.2.
            firmware {"psci_version":"1.1","std_bmap":"trng","std_hyp_bmap":"pv-time","vendor_hyp_bmap":"func-feat,ptp","vendor_hyp_bmap_2":"none"}
            levels {"smccc_arch_workaround_1":"not-required","smccc_arch_workaround_2":"unknown","smccc_arch_workaround_3":"avail"}
            machine {"system_suspend":true,"pv_time":true,"gic":"v3","gicd_revision":3,"gicd_typer2":"0x0","timer_ppis":{"virtual_timer":27,"physical_timer":30},"pmu_ppi":23,"pmu_events":{"pmceid0":"0x20001","pmceid1":"0x18"},"counter":"stop","ipa_bits":48}
            features ["pmu"], lengths None
            61 ID registers; Host
            CCSIDR_EL1 of cache 0 0x701fe01a, mask 0xffffffff
            CCSIDR_EL1 of cache 1 0x201fe01a, mask 0xffffffff
            CCSIDR_EL1 of cache 2 0x70ffe03a, mask 0xffffffff
            ID_AA64DFR0_EL1 0x10305406, mask 0xffffffffffffffff
            CLIDR_EL1 0x82000023, mask 0xffffffffffffffff
            CTR_EL0 0x8444c004, mask 0xffffffffffffffff
            varies: PMCR_EL0 0xffff0000: IMP, IDCODE: Linux 6.1 and older show who made the CPU, 6.12 and later nobody; MIDR_EL1 tells the guest on every host
            lost: CTR_EL0.IDC, DIC 0x9: neoverse-n1-6.1 takes only 0x8
            lost: ID_AA64DFR0_EL1.DebugVer 0x8: neoverse-n1-6.1 takes only 0x6
            lost: pmu_events 0x1e: neoverse-n1-6.1 does not count it
            lost: psci_version 1.3: neoverse-n1-6.1 takes 0.2, 1.0, 1.1
            lost: psci_version 1.3: neoverse-n1-6.12 takes 0.2, 1.0, 1.1
            lost: vendor_hyp_bmap_2 impl-cpus: neoverse-n1-6.1 has no such register, which comes to `none`
            lost: vendor_hyp_bmap_2 impl-cpus: neoverse-n1-6.12 has no such register, which comes to `none`
            lost: vendor_hyp_bmap_2 impl-version: neoverse-n1-6.1 has no such register, which comes to `none`
            lost: vendor_hyp_bmap_2 impl-version: neoverse-n1-6.12 has no such register, which comes to `none`
        "#]],
    );
}

#[test]
fn only_the_debug_version_varies_where_linux_5_10_joins_them() {
    is(
        &hosts("neoverse-n1", &KERNELS),
        &expect![[r#"
            What each of these hosts can give: neoverse-n1-5.10, neoverse-n1-6.1, neoverse-n1-6.12, neoverse-n1-7.2.
            firmware {"psci_version":"1.0","std_bmap":"none","std_hyp_bmap":"pv-time","vendor_hyp_bmap":"none","vendor_hyp_bmap_2":"none"}
            levels {"smccc_arch_workaround_1":"not-required","smccc_arch_workaround_2":"unknown","smccc_arch_workaround_3":"avail"}
            machine {"system_suspend":false,"pv_time":true,"gic":"v3","gicd_revision":2,"gicd_typer2":"0x0","timer_ppis":{"virtual_timer":27,"physical_timer":30},"pmu_ppi":23,"pmu_events":{"pmceid0":"0x20001","pmceid1":"0x18"},"counter":"stop","ipa_bits":48}
            features ["pmu"], lengths None
            61 ID registers; Host
            CCSIDR_EL1 of cache 0 0x701fe01a, mask 0xffffffff
            CCSIDR_EL1 of cache 1 0x201fe01a, mask 0xffffffff
            CCSIDR_EL1 of cache 2 0x70ffe03a, mask 0xffffffff
            CLIDR_EL1 0x82000023, mask 0xffffffffffffffff
            CTR_EL0 0x8444c004, mask 0xffffffffffffffff
            varies: ID_AA64DFR0_EL1 0xf: DebugVer: versions 6 to 9 differ in debugging from outside, which no guest has; what a guest debugs itself with is the same, and told by fields of its own
            varies: PMCR_EL0 0xffff0000: IMP, IDCODE: Linux 6.1 and older show who made the CPU, 6.12 and later nobody; MIDR_EL1 tells the guest on every host
            lost: CTR_EL0.IDC, DIC 0x9: neoverse-n1-5.10 takes only 0x8
            lost: CTR_EL0.IDC, DIC 0x9: neoverse-n1-6.1 takes only 0x8
            lost: ID_AA64DFR0_EL1.DebugVer: neoverse-n1-5.10 takes only 0x8, and so it varies
            lost: ID_AA64DFR0_EL1.DebugVer: neoverse-n1-6.1 takes only 0x6, and so it varies
            lost: ID_AA64DFR0_EL1.DebugVer: neoverse-n1-6.12 takes 0x6 to 0x8, and so it varies
            lost: ID_AA64DFR0_EL1.DebugVer: neoverse-n1-7.2 takes 0x6 to 0x8, and so it varies
            lost: gicd_revision 3: neoverse-n1-5.10 takes only 0x2
            lost: pmu_events 0x1e: neoverse-n1-5.10 does not count it
            lost: pmu_events 0x1e: neoverse-n1-6.1 does not count it
            lost: psci_version 1.3: neoverse-n1-5.10 takes 0.2, 1.0
            lost: psci_version 1.3: neoverse-n1-6.1 takes 0.2, 1.0, 1.1
            lost: psci_version 1.3: neoverse-n1-6.12 takes 0.2, 1.0, 1.1
            lost: std_bmap trng: neoverse-n1-5.10 has no such register, which comes to `none`
            lost: system_suspend: neoverse-n1-5.10 does not have it
            lost: vendor_hyp_bmap func-feat: neoverse-n1-5.10 has no such register, which comes to `none`
            lost: vendor_hyp_bmap ptp: neoverse-n1-5.10 has no such register, which comes to `none`
            lost: vendor_hyp_bmap_2 impl-cpus: neoverse-n1-5.10 has no such register, which comes to `none`
            lost: vendor_hyp_bmap_2 impl-cpus: neoverse-n1-6.1 has no such register, which comes to `none`
            lost: vendor_hyp_bmap_2 impl-cpus: neoverse-n1-6.12 has no such register, which comes to `none`
            lost: vendor_hyp_bmap_2 impl-version: neoverse-n1-5.10 has no such register, which comes to `none`
            lost: vendor_hyp_bmap_2 impl-version: neoverse-n1-6.1 has no such register, which comes to `none`
            lost: vendor_hyp_bmap_2 impl-version: neoverse-n1-6.12 has no such register, which comes to `none`
        "#]],
    );
}

#[test]
fn features_that_kernels_show_in_their_own_way_are_left_out() {
    let hosts = hosts("max", &KERNELS);
    let expected = expect![[r#"
            What each of these hosts can give: max-5.10, max-6.1, max-6.12, max-7.2.
            firmware {"psci_version":"1.0","std_bmap":"none","std_hyp_bmap":"pv-time","vendor_hyp_bmap":"none","vendor_hyp_bmap_2":"none"}
            levels {"smccc_arch_workaround_1":"not-required","smccc_arch_workaround_2":"unknown","smccc_arch_workaround_3":"not-avail"}
            machine {"system_suspend":false,"pv_time":true,"gic":"v3","gicd_revision":2,"gicd_typer2":"0x0","timer_ppis":{"virtual_timer":27,"physical_timer":30},"pmu_ppi":23,"counter":"stop","ipa_bits":48}
            features ["ptrauth"], lengths None
            61 ID registers; Host
            CCSIDR_EL1 of cache 0 0x701fe00a, mask 0xffffffff
            CCSIDR_EL1 of cache 1 0x201fe012, mask 0xffffffff
            CCSIDR_EL1 of cache 2 0x70ffe07a, mask 0xffffffff
            CLIDR_EL1 0x2000023, mask 0xffffffffffffffff
            CTR_EL0 0x8444c004, mask 0xffffffffffffffff
            varies: ID_DFR0_EL1 0xf000000: PerfMon: the vCPU has no performance monitors on any host; an old kernel shows its own CPU's all the same, and can neither set nor hide that
            varies: ID_AA64DFR0_EL1 0xf: DebugVer: versions 6 to 9 differ in debugging from outside, which no guest has; what a guest debugs itself with is the same, and told by fields of its own
            varies: ID_AA64DFR0_EL1 0xf00: PMUVer: the vCPU has no performance monitors on any host; an old kernel shows its own CPU's all the same, and can neither set nor hide that
            varies: ID_AA64MMFR1_EL1 0xf0000000000: HCX: it tells of what EL2 can do, and a guest has no EL2
            lost: CTR_EL0.IDC, DIC 0x9: max-5.10 takes only 0x8
            lost: CTR_EL0.IDC, DIC 0x9: max-6.1 takes only 0x8
            lost: ID_AA64DFR0_EL1.DebugVer: max-5.10 takes only 0x9, and so it varies
            lost: ID_AA64DFR0_EL1.DebugVer: max-6.1 takes only 0x6, and so it varies
            lost: ID_AA64DFR0_EL1.DebugVer: max-6.12 takes 0x6 to 0x9, and so it varies
            lost: ID_AA64DFR0_EL1.DebugVer: max-7.2 takes 0x6 to 0x9, and so it varies
            lost: ID_AA64DFR0_EL1.PMUVer: max-5.10 takes only 0x4, and so it varies
            lost: ID_AA64DFR0_EL1.PMUVer: max-6.1 takes only 0x0, and so it varies
            lost: ID_AA64DFR0_EL1.PMUVer: max-6.12 takes only 0x0, and so it varies
            lost: ID_AA64DFR0_EL1.PMUVer: max-7.2 takes only 0x0, and so it varies
            lost: ID_AA64MMFR1_EL1.HCX: max-5.10 takes only 0x0, and so it varies
            lost: ID_AA64MMFR1_EL1.HCX: max-6.1 takes only 0x0, and so it varies
            lost: ID_AA64MMFR1_EL1.HCX: max-6.12 takes only 0x1, and so it varies
            lost: ID_AA64MMFR1_EL1.HCX: max-7.2 takes 0x0, 0x1, and so it varies
            lost: ID_DFR0_EL1.PerfMon: max-5.10 takes only 0x4, and so it varies
            lost: ID_DFR0_EL1.PerfMon: max-6.1 takes only 0x0, and so it varies
            lost: ID_DFR0_EL1.PerfMon: max-6.12 takes only 0x0, and so it varies
            lost: ID_DFR0_EL1.PerfMon: max-7.2 takes only 0x0, and so it varies
            lost: gicd_revision 3: max-5.10 takes only 0x2
            lost: ipa_bits 52: max-5.10 has 48
            lost: ipa_bits 52: max-6.1 has 48
            lost: pmu: max-5.10 takes only 0x4 in `ID_DFR0_EL1.PerfMon`
            lost: pmu: max-6.1 takes only 0x5 in `ID_DFR0_EL1.PerfMon`
            lost: pmu: max-6.12 takes 0x0, 0x3 to 0x6 in `ID_DFR0_EL1.PerfMon`
            lost: pmu: max-7.2 takes 0x0, 0x3 to 0x6 in `ID_DFR0_EL1.PerfMon`
            lost: psci_version 1.3: max-5.10 takes 0.2, 1.0
            lost: psci_version 1.3: max-6.1 takes 0.2, 1.0, 1.1
            lost: psci_version 1.3: max-6.12 takes 0.2, 1.0, 1.1
            lost: smccc_arch_workaround_3 not-required: max-6.1 is as good as not-avail
            lost: smccc_arch_workaround_3 not-required: max-6.12 is as good as not-avail
            lost: smccc_arch_workaround_3 not-required: max-7.2 is as good as not-avail
            lost: std_bmap trng: max-5.10 has no such register, which comes to `none`
            lost: system_suspend: max-5.10 does not have it
            lost: vendor_hyp_bmap func-feat: max-5.10 has no such register, which comes to `none`
            lost: vendor_hyp_bmap ptp: max-5.10 has no such register, which comes to `none`
            lost: vendor_hyp_bmap_2 impl-cpus: max-5.10 has no such register, which comes to `none`
            lost: vendor_hyp_bmap_2 impl-cpus: max-6.1 has no such register, which comes to `none`
            lost: vendor_hyp_bmap_2 impl-cpus: max-6.12 has no such register, which comes to `none`
            lost: vendor_hyp_bmap_2 impl-version: max-5.10 has no such register, which comes to `none`
            lost: vendor_hyp_bmap_2 impl-version: max-6.1 has no such register, which comes to `none`
            lost: vendor_hyp_bmap_2 impl-version: max-6.12 has no such register, which comes to `none`
        "#]];
    is(&hosts, &expected);
}

#[test]
fn a_register_of_aarch32_may_vary_on_a_cpu_without_it() {
    is(
        &hosts("a64fx", &KERNELS),
        &expect![[r#"
            What each of these hosts can give: a64fx-5.10, a64fx-6.1, a64fx-6.12, a64fx-7.2.
            firmware {"psci_version":"1.0","std_bmap":"none","std_hyp_bmap":"pv-time","vendor_hyp_bmap":"none","vendor_hyp_bmap_2":"none"}
            levels {"smccc_arch_workaround_1":"not-avail","smccc_arch_workaround_2":"unknown","smccc_arch_workaround_3":"not-avail"}
            machine {"system_suspend":false,"pv_time":true,"gic":"v3","gicd_revision":2,"gicd_typer2":"0x0","timer_ppis":{"virtual_timer":27,"physical_timer":30},"pmu_ppi":23,"pmu_events":{"pmceid0":"0x20001","pmceid1":"0x18"},"counter":"stop","ipa_bits":40}
            features ["pmu", "sve"], lengths Some([128, 256, 512])
            61 ID registers; Host
            CCSIDR_EL1 of cache 0 0x7007e01c, mask 0xffffffff
            CCSIDR_EL1 of cache 1 0x2007e01c, mask 0xffffffff
            CCSIDR_EL1 of cache 2 0x70ffe07c, mask 0xffffffff
            CLIDR_EL1 0x80000023, mask 0xffffffffffffffff
            CTR_EL0 0x86668006, mask 0xffffffffffffffff
            varies: ID_DFR0_EL1 0xf000000: PerfMon: no CPU has AArch32, and without it the register means nothing
            varies: ID_AA64DFR0_EL1 0xf: DebugVer: versions 6 to 9 differ in debugging from outside, which no guest has; what a guest debugs itself with is the same, and told by fields of its own
            varies: PMCR_EL0 0xffff0000: IMP, IDCODE: Linux 6.1 and older show who made the CPU, 6.12 and later nobody; MIDR_EL1 tells the guest on every host
            lost: CTR_EL0.IDC, DIC 0x9: a64fx-5.10 takes only 0x8
            lost: CTR_EL0.IDC, DIC 0x9: a64fx-6.1 takes only 0x8
            lost: ID_AA64DFR0_EL1.DebugVer: a64fx-5.10 takes only 0x8, and so it varies
            lost: ID_AA64DFR0_EL1.DebugVer: a64fx-6.1 takes only 0x6, and so it varies
            lost: ID_AA64DFR0_EL1.DebugVer: a64fx-6.12 takes 0x6 to 0x8, and so it varies
            lost: ID_AA64DFR0_EL1.DebugVer: a64fx-7.2 takes 0x6 to 0x8, and so it varies
            lost: ID_DFR0_EL1.PerfMon: a64fx-5.10 takes only 0x0, and so it varies
            lost: ID_DFR0_EL1.PerfMon: a64fx-6.1 takes only 0x0, and so it varies
            lost: ID_DFR0_EL1.PerfMon: a64fx-6.12 takes only 0x4, and so it varies
            lost: ID_DFR0_EL1.PerfMon: a64fx-7.2 takes only 0x4, and so it varies
            lost: gicd_revision 3: a64fx-5.10 takes only 0x2
            lost: pmu_events 0x1e: a64fx-5.10 does not count it
            lost: pmu_events 0x1e: a64fx-6.1 does not count it
            lost: psci_version 1.3: a64fx-5.10 takes 0.2, 1.0
            lost: psci_version 1.3: a64fx-6.1 takes 0.2, 1.0, 1.1
            lost: psci_version 1.3: a64fx-6.12 takes 0.2, 1.0, 1.1
            lost: smccc_arch_workaround_3 not-required: a64fx-6.1 is as good as not-avail
            lost: smccc_arch_workaround_3 not-required: a64fx-6.12 is as good as not-avail
            lost: smccc_arch_workaround_3 not-required: a64fx-7.2 is as good as not-avail
            lost: std_bmap trng: a64fx-5.10 has no such register, which comes to `none`
            lost: system_suspend: a64fx-5.10 does not have it
            lost: vendor_hyp_bmap func-feat: a64fx-5.10 has no such register, which comes to `none`
            lost: vendor_hyp_bmap ptp: a64fx-5.10 has no such register, which comes to `none`
            lost: vendor_hyp_bmap_2 impl-cpus: a64fx-5.10 has no such register, which comes to `none`
            lost: vendor_hyp_bmap_2 impl-cpus: a64fx-6.1 has no such register, which comes to `none`
            lost: vendor_hyp_bmap_2 impl-cpus: a64fx-6.12 has no such register, which comes to `none`
            lost: vendor_hyp_bmap_2 impl-version: a64fx-5.10 has no such register, which comes to `none`
            lost: vendor_hyp_bmap_2 impl-version: a64fx-6.1 has no such register, which comes to `none`
            lost: vendor_hyp_bmap_2 impl-version: a64fx-6.12 has no such register, which comes to `none`
        "#]],
    );
}

#[test]
fn cpus_that_differ_in_what_cannot_be_hidden_have_no_baseline() {
    is_refused(
        &[host("cortex-a57-7.2"), host("neoverse-n1-7.2"), host("max-7.2")],
        &expect![[r#"
            error: these hosts have no profile in common
                `ID_AA64PFR0_EL1.FP`: cortex-a57-7.2 takes only 0x0; max-7.2 takes only 0x1; neoverse-n1-7.2 takes only 0x1
                `ID_AA64PFR0_EL1.AdvSIMD`: cortex-a57-7.2 takes only 0x0; max-7.2 takes only 0x1; neoverse-n1-7.2 takes only 0x1
                `ID_AA64MMFR2_EL1.IDS`: cortex-a57-7.2 takes only 0x0; max-7.2 takes only 0x1; neoverse-n1-7.2 takes only 0x0
              fix: make a baseline for each group of hosts that are alike; kernels from Linux 6.7 on can show most of what other CPUs are, from 6.15 on their names, too"#]],
    );
}

#[test]
fn kernels_that_cannot_name_another_cpu_have_no_baseline_over_two() {
    is_refused(
        &[host("cortex-a57-6.12"), host("neoverse-n1-6.12")],
        &expect![[r#"
            error: these hosts have no profile in common
                `MIDR_EL1`: cortex-a57-6.12 takes only 0x411fd070; neoverse-n1-6.12 takes only 0x414fd0c1
                `ID_AA64PFR0_EL1.FP`: cortex-a57-6.12 takes only 0x0; neoverse-n1-6.12 takes only 0x1
                `ID_AA64PFR0_EL1.AdvSIMD`: cortex-a57-6.12 takes only 0x0; neoverse-n1-6.12 takes only 0x1
                `ID_AA64PFR0_EL1.RAS`: cortex-a57-6.12 takes only 0x0; neoverse-n1-6.12 takes only 0x1
              fix: make a baseline for each group of hosts that are alike; kernels from Linux 6.7 on can show most of what other CPUs are, from 6.15 on their names, too"#]],
    );
}

#[test]
fn a_host_whose_registers_cannot_be_written_forces_its_values_on_all() {
    let hosts = [host("cortex-a57-5.10"), host("cortex-a57-6.12")];
    is(
        &hosts,
        &expect![[r#"
            What each of these hosts can give: cortex-a57-5.10, cortex-a57-6.12.
            firmware {"psci_version":"1.0","std_bmap":"none","std_hyp_bmap":"pv-time","vendor_hyp_bmap":"none","vendor_hyp_bmap_2":"none"}
            levels {"smccc_arch_workaround_1":"not-avail","smccc_arch_workaround_2":"unknown","smccc_arch_workaround_3":"not-avail"}
            machine {"system_suspend":false,"pv_time":true,"gic":"v3","gicd_revision":2,"gicd_typer2":"0x0","timer_ppis":{"virtual_timer":27,"physical_timer":30},"pmu_ppi":23,"pmu_events":{"pmceid0":"0x20001","pmceid1":"0x0"},"counter":"stop","ipa_bits":44}
            features ["pmu"], lengths None
            61 ID registers; Host
            CCSIDR_EL1 of cache 0 0x701fe00a, mask 0xffffffff
            CCSIDR_EL1 of cache 1 0x201fe012, mask 0xffffffff
            CCSIDR_EL1 of cache 2 0x70ffe07a, mask 0xffffffff
            ID_AA64PFR0_EL1 0x222, mask 0xfffffffff0ffffff
            CLIDR_EL1 0xa200023, mask 0xffffffffffffffff
            varies: PMCR_EL0 0xffff0000: IMP, IDCODE: Linux 6.1 and older show who made the CPU, 6.12 and later nobody; MIDR_EL1 tells the guest on every host
            lost: ID_AA64PFR0_EL1.CSV3 0x1: cortex-a57-5.10 takes only 0x0
            lost: gicd_revision 3: cortex-a57-5.10 takes only 0x2
            lost: pmu_events 0x1e: cortex-a57-5.10 does not count it
            lost: psci_version 1.1: cortex-a57-5.10 takes 0.2, 1.0
            lost: std_bmap trng: cortex-a57-5.10 has no such register, which comes to `none`
            lost: system_suspend: cortex-a57-5.10 does not have it
            lost: vendor_hyp_bmap func-feat: cortex-a57-5.10 has no such register, which comes to `none`
            lost: vendor_hyp_bmap ptp: cortex-a57-5.10 has no such register, which comes to `none`
        "#]],
    );
}

#[test]
fn a_baseline_is_read_in_one_pass() {
    let abi = baseline(&hosts("max", &["6.1", "6.12", "7.2"])).unwrap().abi;
    assert_eq!(GuestAbi::read_quickly(abi.to_json().as_bytes()), Some(abi));
}

#[test]
fn a_fleet_without_hosts() {
    is_refused(
        &[],
        &expect![[r#"
        error: a baseline needs a host at least
          fix: name the documents that `kedge abi probe` wrote on the hosts"#]],
    );
}

#[test]
fn a_host_alone_loses_nothing() {
    let losses = KERNELS.map(|kernel| baseline(&hosts("max", &[kernel])).unwrap().losses);
    assert_eq!(losses, [const { Vec::new() }; 4]);
}

#[test]
fn the_same_promises_have_the_same_name() {
    let name = |hosts: &[(String, HostAbi)]| baseline(hosts).unwrap().abi.name;
    let (old, new) = (host("neoverse-n1-6.1"), host("neoverse-n1-7.2"));
    let both = name(&[old.clone(), new.clone()]);
    assert_eq!(both, name(&[new.clone(), old.clone(), new.clone()]));
    assert_ne!(both, name(&[new]));
}
