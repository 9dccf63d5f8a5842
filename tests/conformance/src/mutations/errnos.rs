//! Every errno of the model, wrong.

use kedge_hv_model::{Ability, FailedRun, Refusal, Release, Scope, UnreadyPmu};

/// A refusal with an errno that no rule has.
#[derive(Clone, Debug)]
pub struct WrongErrno {
    /// What is refused.
    pub refusal: Refusal,
    /// What speaks for the right one: a case, or a group of facts.
    pub clue: &'static str,
    /// Whether a release ever refuses it.
    pub refuses: fn(&Release) -> bool,
}

impl WrongErrno {
    /// The release, wrong in this one errno.
    pub fn mutated(&self, release: &Release) -> Release {
        let wrong = (self.refusal, libc::EBADFD);
        let errnos: Vec<_> = std::iter::once(wrong).chain(release.errnos.iter().copied()).collect();
        Release { errnos: errnos.leak(), ..release.clone() }
    }
}

const fn wrong(refusal: Refusal, clue: &'static str) -> WrongErrno {
    only_if(refusal, clue, |_| true)
}

const fn only_if(
    refusal: Refusal,
    clue: &'static str,
    refuses: fn(&Release) -> bool,
) -> WrongErrno {
    WrongErrno { refusal, clue, refuses }
}

/// Every errno, wrong.
pub const WRONG_ERRNOS: &[WrongErrno] = &[
    wrong(Refusal::AddressBits, "a_machine_has_as_many_address_bits_as_the_host_at_most"),
    wrong(Refusal::SlotNumber, "slots_are_numbered_up_to_the_limit"),
    wrong(Refusal::SlotMisaligned, "memory_starts_at_a_page"),
    wrong(Refusal::SlotTwice, "a_slot_is_given_once"),
    wrong(Refusal::SlotOverlap, "memory_does_not_overlap"),
    wrong(Refusal::SlotBeyond, "memory_ends_within_the_machines_address_bits"),
    wrong(Refusal::NoSlot, "a_slot_that_is_not_there_has_no_log"),
    wrong(Refusal::NoDirtyLog, "a_slot_without_a_log_has_none_to_take"),
    wrong(Refusal::VcpuTwice, "there_is_one_vcpu_of_each_index"),
    wrong(Refusal::VcpuNumber, "there_are_no_more_vcpus_than_the_limit"),
    wrong(Refusal::VcpuLate, "vcpus_come_before_initialisation"),
    wrong(Refusal::UnknownFeature, "an_unknown_feature_does_not_exist"),
    wrong(Refusal::BadFeatures, "half_of_pointer_authentication_is_refused"),
    only_if(Refusal::OtherFeatures, "features", |r| r.feature_scope == Scope::Vm),
    wrong(Refusal::ChangedFeatures, "initialising_again_takes_the_same_features_only"),
    only_if(Refusal::MixedWidth, "all_vcpus_have_one_register_width", |r| {
        r.feature_scope == Scope::Vcpu
    }),
    wrong(Refusal::NotInitialised, "nothing_works_before_initialisation"),
    only_if(Refusal::MpState, "suspending_a_vcpu_and_the_system_came_together", |r| {
        r.system_suspend == Ability::Absent
    }),
    wrong(Refusal::NoRegister, "an_unknown_register_does_not_exist"),
    wrong(Refusal::OtherArch, "an_id_of_another_architecture_is_refused"),
    wrong(Refusal::HiddenCore, "vector_registers_give_way_to_wider_ones"),
    wrong(Refusal::Length, "a_value_of_another_length_is_refused"),
    wrong(Refusal::BadValue, "versions_that_psci_does_not_have_are_refused"),
    wrong(Refusal::Frozen, "bitmaps_freeze_at_the_first_run"),
    wrong(Refusal::SveUnfinished, "nothing_is_listed_or_run_before_finalization"),
    wrong(Refusal::SveFinished, "lengths_cannot_change_after_finalization"),
    wrong(Refusal::SveLengths, "a_length_in_the_middle_cannot_be_left_out"),
    wrong(Refusal::FinalizedTwice, "lengths_are_finalized_once"),
    wrong(Refusal::FinalizeWithout, "a_vcpu_without_sve_has_no_lengths_to_finalize"),
    wrong(Refusal::GicVersion, "a_version_the_host_lacks_is_no_device"),
    wrong(Refusal::GicTwice, "there_is_one_controller"),
    wrong(Refusal::GicLate, "a_controller_comes_before_the_first_run"),
    wrong(Refusal::GicCrowded, "a_gicv2_serves_eight_vcpus"),
    wrong(Refusal::GicMisaligned, "frames_are_aligned"),
    wrong(Refusal::GicBeyond, "frames_lie_within_the_machines_address_bits"),
    wrong(Refusal::GicLines, "interrupts_come_in_thirty_twos_below_1024"),
    wrong(Refusal::PulseWithoutGic, "an_edge_needs_a_controller_that_is_ready_and_has_the_input"),
    wrong(Refusal::PulseEarly, "an_edge_needs_a_controller_that_is_ready_and_has_the_input"),
    wrong(Refusal::PulseBeyond, "an_edge_needs_a_controller_that_is_ready_and_has_the_input"),
    wrong(Refusal::IrqTwice, "an_event_raises_one_interrupt"),
    wrong(Refusal::IrqBeyond, "an_interrupt_the_controller_lacks_is_refused"),
    wrong(Refusal::MsiWithoutGic, "a_message_needs_a_controller"),
    wrong(Refusal::MsiWithoutIts, "a_message_needs_a_service"),
    wrong(Refusal::MsiElsewhere, "a_message_goes_to_the_service"),
    wrong(Refusal::MsiEarly, "a_service_that_is_off_takes_no_message"),
    wrong(Refusal::DoorbellTwice, "there_is_one_doorbell_for_an_address_and_value"),
    wrong(Refusal::DoorbellMissing, "a_doorbell_that_is_not_there_cannot_be_taken_off"),
    only_if(Refusal::SystemSuspend, "suspending_a_vcpu_and_the_system_came_together", |r| {
        r.system_suspend == Ability::Absent
    }),
    wrong(Refusal::NoPmu, "a_vcpu_without_a_pmu_has_none_to_initialise"),
    wrong(Refusal::PmuEarly, "a_pmu_comes_after_the_controllers_initialisation"),
    wrong(Refusal::PmuTwice, "a_pmu_is_initialised_once"),
    wrong(Refusal::HideWithoutPmu, "a_vcpu_without_monitors_has_no_events_to_hide"),
    wrong(Refusal::HideBeyond, "an_event_past_the_last_cannot_be_hidden"),
    wrong(Refusal::HideLate, "events_of_ready_monitors_cannot_be_hidden"),
    wrong(Refusal::NoSystemRegister, "only_system_registers_are_read_as_a_guest"),
    wrong(Refusal::ImpIds, "a_host_whose_main_id_registers_are_fixed_says_so"),
    wrong(Refusal::NoFilter, "a_host_without_a_filter_says_so"),
    wrong(Refusal::FilterRange, "a_range_has_a_function_and_an_end"),
    wrong(Refusal::FilterOverlap, "ranges_can_touch_but_not_overlap"),
    wrong(Refusal::FilterLate, "a_filter_comes_before_the_first_run"),
    wrong(Refusal::NoCounterOffset, "a_host_without_offsets_refuses_one"),
    wrong(Refusal::PvTimeMisaligned, "a_record_of_stolen_time_is_aligned"),
    wrong(Refusal::PvTimeTwice, "a_record_of_stolen_time_never_moves"),
    wrong(Refusal::PvTimeNowhere, "a_record_of_stolen_time_is_in_writable_memory"),
    wrong(Refusal::TimerWithoutGic, "timers_without_a_controller_have_no_interrupts"),
    wrong(Refusal::TimerLate, "timers_keep_their_interrupts_after_the_first_run"),
    wrong(Refusal::SErrorSyndrome, "a_syndrome_has_25_bits"),
    wrong(Refusal::NoGicRegister, "a_gicv3_has_no_registers_of_a_gicv2"),
    only_if(Refusal::GicRegisterEarly, "revisions of the distributor", |r| {
        r.early_revision == Ability::Absent
    }),
    wrong(Refusal::NoGicCpu, "a_vcpu_that_is_not_there_has_no_registers"),
    wrong(Refusal::GicRunning, "a_controller_is_out_of_reach_while_a_vcpu_runs"),
    wrong(Refusal::NoCpuRegister, "registers of a CPU interface"),
    wrong(
        Refusal::NoActivePriorities,
        "a_cpu_interface_has_as_many_active_priorities_as_its_bits_ask_for",
    ),
    wrong(Refusal::LevelAlignment, "levels_are_told_by_32_lines"),
    wrong(Refusal::ItsAlignment, "registers_of_a_service_are_reached_whole"),
    wrong(Refusal::GicTyper2, "registers of a distributor"),
    wrong(Refusal::ItsEnabled, "a_service_at_work_keeps_its_place_in_the_queue"),
    wrong(Refusal::NoPendingTables, "a_gicv2_has_no_lpis_to_save"),
    only_if(Refusal::PendingTablesEarly, "registers before initialisation", |r| {
        r.early_pending_tables == Ability::Absent
    }),
    wrong(Refusal::TableNowhere, "tables_are_where_there_is_memory"),
    wrong(Refusal::NoIts, "a_controller_without_a_service_has_no_tables"),
    wrong(Refusal::GicRegisterValue, "a_revision_the_distributor_lacks_is_refused"),
    wrong(Refusal::SharedPpi, "two_timers_with_one_interrupt_do_not_run"),
    only_if(Refusal::Dead, "unready controllers", |r| r.failed_run == FailedRun::KillsMachine),
    wrong(Refusal::GicUnready, "a_controller_that_is_not_ready_keeps_vcpus_from_running"),
    only_if(Refusal::PmuUnready, "unready pmus", |r| r.unready_pmu == UnreadyPmu::Refused),
];
