//! What a probe found, as tables for a terminal.

use kedge_firmware::{
    FoundCpu, FoundField, FoundFirmware, FoundIdReg, Hex, HostAbi, HostLimits, PmuEventSet,
};
use kedge_hv::GicVersion;

use crate::columns::{aligned, row};

/// All of it.
pub(super) fn tables(host: &HostAbi) -> String {
    let limits = aligned(&limits(&host.limits));
    let firmware = aligned(&firmware(&host.firmware));
    let identity = host.cpus.first().map_or(String::new(), |cpu| aligned(&identity(cpu)));
    format!("{limits}\n{firmware}\n{identity}")
}

fn limits(limits: &HostLimits) -> Vec<[String; 2]> {
    let HostLimits {
        ipa_bits,
        vcpus,
        features,
        gics,
        its,
        system_suspend,
        sve_lengths,
        pmu_events,
        counter_hz,
        page_size,
    } = limits;
    let gics = gics.iter().map(|gic| match gic.version {
        GicVersion::V2 => "v2",
        GicVersion::V3 if *its => "v3 with ITS",
        GicVersion::V3 => "v3",
    });
    let gics: Vec<_> = gics.map(str::to_owned).collect();
    let lengths: Vec<_> = sve_lengths.iter().map(u32::to_string).collect();
    vec![
        ["Address bits".to_owned(), ipa_bits.to_string()],
        ["vCPUs".to_owned(), vcpus.to_string()],
        ["vCPU features".to_owned(), listed(features)],
        ["SVE lengths, in bits".to_owned(), listed(&lengths)],
        ["Interrupt controllers".to_owned(), listed(&gics)],
        [
            "Events of the PMU".to_owned(),
            pmu_events.map_or_else(|| "none".to_owned(), PmuEventSet::words),
        ],
        row(["Suspend to RAM", if *system_suspend { "yes" } else { "no" }]),
        ["Counter, in Hz".to_owned(), counter_hz.to_string()],
        ["Page, in bytes".to_owned(), page_size.to_string()],
    ]
}

fn listed(words: &[String]) -> String {
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

fn firmware(all: &[FoundFirmware]) -> Vec<[String; 5]> {
    let mut rows = vec![row(["FIRMWARE REGISTER", "DEFAULT", "SCOPE", "TAKES", ""])];
    rows.extend(all.iter().map(|found| {
        let firmware = found.firmware();
        let default = found.default.as_u64();
        [
            firmware.to_string(),
            default.map_or_else(|| found.default.to_string(), |value| firmware.format(value)),
            found.scope.words().to_owned(),
            found.takes.words(firmware),
            listed_or_empty(&found.surprises()),
        ]
    }));
    rows
}

fn listed_or_empty(notes: &[String]) -> String {
    if notes.is_empty() { String::new() } else { format!("({})", notes.join("; ")) }
}

fn identity(cpu: &FoundCpu) -> Vec<[String; 4]> {
    let mut rows = vec![row(["ID REGISTER", "VALUE", "SCOPE", "FIELDS THAT TAKE OTHER VALUES"])];
    rows.extend(cpu.id_registers.iter().filter(|found| shows(found)).map(|found| {
        let FoundIdReg { id: _, name, value, scope, guest, fields } = found;
        let fields: Vec<_> = fields.iter().map(field).collect();
        let value = match guest {
            Some(guest) => format!("{value}, to a guest {guest}"),
            None => value.to_string(),
        };
        [name.clone(), value, scope.words().to_owned(), listed(&fields)]
    }));
    rows
}

/// Registers that say nothing and cannot are left to the JSON, and so are the sizes of
/// caches, which most kernels list whether or not there is such a cache.
fn shows(found: &FoundIdReg) -> bool {
    const CACHES: u64 = 0x11;
    let says = found.value != Hex(0) || !found.fields.is_empty();
    says && found.id.coprocessor() != CACHES
}

/// A field as its bits.
fn field(field: &FoundField) -> String {
    format!("{}:{}", field.shift + 3, field.shift)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use kedge_firmware::probe;
    use kedge_hv_model::{ModelHypervisor, V7_2};

    use super::*;

    #[test]
    fn a_host_is_shown_in_tables() {
        let host = probe(&ModelHypervisor::new(&V7_2).unwrap()).unwrap();
        expect![[r#"
            Address bits           52
            vCPUs                  512
            vCPU features          power-off, el1-32bit, psci-0.2, pmu, sve, ptrauth
            SVE lengths, in bits   128, 256, 384, 512, 640, 768, 896, 1024, 1152, 1280, 1408, 1536, 1664, 1792, 1920, 2048
            Interrupt controllers  v3 with ITS
            Events of the PMU      0x0, 0x11, 0x1e, 0x23, 0x24, 0x3c
            Suspend to RAM         yes
            Counter, in Hz         62500000
            Page, in bytes         4096

            FIRMWARE REGISTER        DEFAULT        SCOPE       TAKES
            psci_version             1.3            whole VM    0.2, 1.0, 1.1, 1.2, 1.3
            smccc_arch_workaround_1  not-required   unchanging  not-avail, avail, not-required; stores nothing
            smccc_arch_workaround_2  not-avail      unchanging  not-avail, unknown; stores nothing
            smccc_arch_workaround_3  not-avail      unchanging  not-avail; stores nothing
            std_bmap                 trng           whole VM    any of trng
            std_hyp_bmap             pv-time        whole VM    any of pv-time
            vendor_hyp_bmap          func-feat,ptp  whole VM    any of func-feat,ptp
            vendor_hyp_bmap_2        none           whole VM    any of impl-version,impl-cpus

            ID REGISTER       VALUE               SCOPE       FIELDS THAT TAKE OTHER VALUES
            MIDR_EL1          0xf0510             unchanging  none
            ID_PFR0_EL1       0x1020131           whole VM    3:0, 7:4, 11:8, 19:16, 27:24
            ID_PFR1_EL1       0x10011001          whole VM    3:0, 15:12, 19:16, 31:28
            ID_DFR0_EL1       0x10009             whole VM    3:0, 19:16, 27:24
            ID_MMFR0_EL1      0x10101105          whole VM    3:0, 11:8, 15:12, 23:20, 31:28
            ID_MMFR1_EL1      0x40000000          whole VM    31:28
            ID_MMFR2_EL1      0x1260000           whole VM    19:16, 23:20, 27:24
            ID_MMFR3_EL1      0x2122211           whole VM    3:0, 7:4, 11:8, 15:12, 19:16, 23:20, 27:24
            ID_ISAR0_EL1      0x2101110           whole VM    7:4, 11:8, 15:12, 23:20, 27:24
            ID_ISAR1_EL1      0x13112111          whole VM    3:0, 7:4, 11:8, 15:12, 19:16, 23:20, 27:24, 31:28
            ID_ISAR2_EL1      0x21232042          whole VM    3:0, 7:4, 15:12, 19:16, 23:20, 27:24, 31:28
            ID_ISAR3_EL1      0x1112131           whole VM    3:0, 7:4, 11:8, 15:12, 19:16, 23:20, 27:24
            ID_ISAR4_EL1      0x11142             whole VM    3:0, 7:4, 11:8, 15:12, 19:16
            ID_ISAR5_EL1      0x1011121           whole VM    3:0, 7:4, 11:8, 15:12, 19:16, 27:24
            ID_MMFR4_EL1      0x11110             whole VM    3:0, 7:4, 11:8, 15:12, 19:16
            ID_ISAR6_EL1      0x1111111           whole VM    3:0, 7:4, 11:8, 15:12, 19:16, 23:20, 27:24
            MVFR0_EL1         0x10110222          whole VM    3:0, 7:4, 11:8, 19:16, 23:20, 31:28
            MVFR1_EL1         0x13211111          whole VM    3:0, 7:4, 11:8, 15:12, 19:16, 23:20, 27:24, 31:28
            MVFR2_EL1         0x43                whole VM    3:0, 7:4
            ID_PFR2_EL1       0x11                whole VM    3:0, 7:4
            ID_MMFR5_EL1      0x1                 whole VM    3:0
            ID_AA64PFR0_EL1   0x1101001021110222  whole VM    3:0, 7:4, 11:8, 27:24, 31:28, 39:36, 51:48, 59:56, 63:60
            ID_AA64PFR1_EL1   0x21                whole VM    3:0, 7:4
            ID_AA64DFR0_EL1   0x10305009          whole VM    3:0, 11:8, 23:20, 39:36
            ID_AA64ISAR0_EL1  0x1221111110212120  whole VM    7:4, 11:8, 15:12, 19:16, 23:20, 31:28, 35:32, 39:36, 43:40, 47:44, 51:48, 55:52, 59:56, 63:60
            ID_AA64ISAR1_EL1  0x11111100211002    whole VM    3:0, 15:12, 19:16, 23:20, 35:32, 39:36, 43:40, 47:44, 51:48, 55:52
            ID_AA64MMFR0_EL1  0x32310201126       whole VM    3:0, 11:8, 15:12, 23:20, 27:24, 31:28, 35:32, 39:36, 43:40
            ID_AA64MMFR1_EL1  0x11010211122       whole VM    3:0, 15:12, 19:16, 23:20, 27:24, 39:36, 43:40
            ID_AA64MMFR2_EL1  0x1021011010011011  whole VM    3:0, 7:4, 15:12, 19:16, 31:28, 51:48, 55:52, 63:60
            CLIDR_EL1         0x2000021           per vCPU    3:0, 7:4, 11:8, 15:12, 19:16, 23:20, 27:24, 31:28, 35:32, 39:36, 43:40, 47:44
            CTR_EL0           0x9444c004          whole VM    3:0, 15:12, 19:16, 31:28
        "#]].assert_eq(&tables(&host));
    }
}
