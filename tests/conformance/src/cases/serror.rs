//! A pending SError, which is in no register.

use kedge_hv::SError;
use libc::EINVAL;

use crate::case::cases;
use crate::ctx::{Ctx, PLAIN, equal, refused};

cases![
    Kvm no_serror_waits_at_first,
    Kvm an_serror_waits_for_its_vcpu_only,
    Kvm a_syndrome_has_25_bits,
    Kvm initialisation_takes_a_waiting_serror_back,
    Ras a_syndrome_is_read_back,
    Ras a_syndrome_can_be_replaced,
    Ras without_a_syndrome_it_is_one_of_the_cpus_own_kind,
    NoRas a_cpu_without_ras_takes_no_syndrome,
];

const SYNDROME: SError = SError { esr: Some(0x1ff_1234) };
const BARE: SError = SError { esr: None };

fn no_serror_waits_at_first(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    equal(&ctx.machine(1)?[0].serror()?, &None)
}

fn an_serror_waits_for_its_vcpu_only(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(2)?;
    machine[0].set_serror(BARE)?;
    equal(&machine[0].serror()?.is_some(), &true)?;
    equal(&machine[1].serror()?, &None)
}

fn a_syndrome_has_25_bits(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(1)?;
    refused(machine[0].set_serror(SError { esr: Some(1 << 25) }), EINVAL)?;
    refused(machine[0].set_serror(SError { esr: Some(u64::MAX) }), EINVAL)?;
    equal(&machine[0].serror()?, &None)
}

fn initialisation_takes_a_waiting_serror_back(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut machine = ctx.machine(1)?;
    machine[0].set_serror(BARE)?;
    machine[0].init(PLAIN)?;
    equal(&machine[0].serror()?, &None)
}

fn a_syndrome_is_read_back(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(1)?;
    machine[0].set_serror(SYNDROME)?;
    equal(&machine[0].serror()?, &Some(SYNDROME))
}

fn a_syndrome_can_be_replaced(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(1)?;
    machine[0].set_serror(SYNDROME)?;
    machine[0].set_serror(SError { esr: Some(0) })?;
    equal(&machine[0].serror()?, &Some(SError { esr: Some(0) }))
}

fn without_a_syndrome_it_is_one_of_the_cpus_own_kind(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    const OWN_KIND: u64 = 1 << 24;
    let machine = ctx.machine(1)?;
    machine[0].set_serror(BARE)?;
    equal(&machine[0].serror()?, &Some(SError { esr: Some(OWN_KIND) }))
}

fn a_cpu_without_ras_takes_no_syndrome(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let machine = ctx.machine(1)?;
    refused(machine[0].set_serror(SError { esr: Some(0) }), EINVAL)?;
    machine[0].set_serror(BARE)?;
    equal(&machine[0].serror()?, &Some(BARE))
}
