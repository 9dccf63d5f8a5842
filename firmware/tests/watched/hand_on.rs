//! What a vCPU that wraps another one hands on to it as it comes.

/// The methods of a `Vcpu` that nobody watches, handed on to the field of that name. Left
/// to the wrapper are the registers and what enters the vCPU.
macro_rules! hand_on_to {
    ($vcpu:ident) => {
        fn id(&self) -> kedge_ids::VcpuId {
            self.$vcpu.id()
        }
        fn init(&mut self, features: kedge_hv::VcpuFeatures) -> Result<(), kedge_hv::HvError> {
            self.$vcpu.init(features)
        }
        fn finalize_sve(&mut self) -> Result<(), kedge_hv::HvError> {
            self.$vcpu.finalize_sve()
        }
        fn mp_state(&self) -> Result<kedge_hv::MpState, kedge_hv::HvError> {
            self.$vcpu.mp_state()
        }
        fn set_mp_state(&self, state: kedge_hv::MpState) -> Result<(), kedge_hv::HvError> {
            self.$vcpu.set_mp_state(state)
        }
        fn init_pmu(&self, irq: kedge_ids::Ppi) -> Result<(), kedge_hv::HvError> {
            self.$vcpu.init_pmu(irq)
        }
        fn hide_pmu_events(&self, events: kedge_hv::PmuEvents) -> Result<(), kedge_hv::HvError> {
            self.$vcpu.hide_pmu_events(events)
        }
        fn read_as_guest(
            &mut self,
            ids: &[kedge_ids::RegId],
        ) -> Result<Vec<Option<u64>>, kedge_hv::HvError> {
            self.$vcpu.read_as_guest(ids)
        }
        fn inject_external_abort(&mut self) -> Result<(), kedge_hv::HvError> {
            self.$vcpu.inject_external_abort()
        }
        fn set_pv_time(
            &self,
            address: kedge_guest_memory::GuestAddress,
        ) -> Result<(), kedge_hv::HvError> {
            self.$vcpu.set_pv_time(address)
        }
        fn pv_time(&self) -> Result<Option<kedge_guest_memory::GuestAddress>, kedge_hv::HvError> {
            self.$vcpu.pv_time()
        }
        fn set_timer_ppi(
            &self,
            timer: kedge_hv::Timer,
            ppi: kedge_ids::Ppi,
        ) -> Result<(), kedge_hv::HvError> {
            self.$vcpu.set_timer_ppi(timer, ppi)
        }
        fn serror(&self) -> Result<Option<kedge_hv::SError>, kedge_hv::HvError> {
            self.$vcpu.serror()
        }
        fn set_serror(&self, serror: kedge_hv::SError) -> Result<(), kedge_hv::HvError> {
            self.$vcpu.set_serror(serror)
        }
        fn has_run(&self) -> bool {
            self.$vcpu.has_run()
        }
        fn kicker(&mut self) -> Result<Box<dyn kedge_hv::Kick>, kedge_hv::HvError> {
            self.$vcpu.kicker()
        }
    };
}

pub(crate) use hand_on_to;
