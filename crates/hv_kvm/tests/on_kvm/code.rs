//! The guests: a few instructions each, as GNU as makes them.

#[rustfmt::skip]
pub(crate) const STORE_AND_LOAD: [u32; 5] = [
    0xd2a12001, // mov  x1, #0x9000000
    0x52800820, // mov  w0, #0x41
    0x39000020, // strb w0, [x1]
    0xb9400422, // ldr  w2, [x1, #4]
    0xf9000422, // str  x2, [x1, #8]
];
#[rustfmt::skip]
pub(crate) const LOAD_PAIR: [u32; 3] = [
    0xd2a12001, // mov  x1, #0x9000000
    0xa9400c22, // ldp  x2, x3, [x1]
    0xd2800022, // mov  x2, #1
];
#[rustfmt::skip]
pub(crate) const LOAD: [u32; 4] = [
    0xd2a12001, // mov  x1, #0x9000000
    0xd28000e2, // mov  x2, #7
    0xf9400422, // ldr  x2, [x1, #8]
    0xd2800022, // mov  x2, #1
];
#[rustfmt::skip]
pub(crate) const STORE_TO_ROM: [u32; 4] = [
    0xd2a20001, // mov  x1, #0x10000000
    0xd28000e2, // mov  x2, #7
    0xf9000422, // str  x2, [x1, #8]
    0xd2800022, // mov  x2, #1
];
#[rustfmt::skip]
pub(crate) const CALL_AND_STORE_X0: [u32; 3] = [
    0xd4000002, // hvc  #0
    0xd2a12001, // mov  x1, #0x9000000
    0xf9000020, // str  x0, [x1]
];
#[rustfmt::skip]
pub(crate) const WAIT: [u32; 2] = [
    0xd503207f, // wfi
    0x17ffffff, // b    . - 4
];
#[rustfmt::skip]
pub(crate) const RING: [u32; 5] = [
    0xd2a12001, // mov  x1, #0x9000000
    0x52800060, // mov  w0, #3
    0xb9005020, // str  w0, [x1, #0x50]
    0x52800080, // mov  w0, #4
    0xb9005020, // str  w0, [x1, #0x50]
];
#[rustfmt::skip]
pub(crate) const REPORT_EXCEPTION: [u32; 4] = [
    0xd2a12007, // mov  x7, #0x9000000
    0xd5385204, // mrs  x4, esr_el1
    0xd5384025, // mrs  x5, elr_el1
    0xf90000e4, // str  x4, [x7]
];
#[rustfmt::skip]
pub(crate) const TAKE_INTERRUPT_V3: [u32; 19] = [
    0xd2a10001, // mov  x1, #0x8000000
    0x52800240, // mov  w0, #0x12
    0xb9000020, // str  w0, [x1]            GICD_CTLR: ARE, group 1
    0x52800040, // mov  w0, #2
    0xb9008420, // str  w0, [x1, #0x84]     GICD_IGROUPR1: INTID 33
    0xb9010420, // str  w0, [x1, #0x104]    GICD_ISENABLER1
    0xd28000e0, // mov  x0, #7
    0xd518cca0, // msr  icc_sre_el1, x0
    0xd5033fdf, // isb
    0xd2801e00, // mov  x0, #0xf0
    0xd5184600, // msr  icc_pmr_el1, x0
    0xd2800020, // mov  x0, #1
    0xd518cce0, // msr  icc_igrpen1_el1, x0
    0xd5033fdf, // isb
    0xd2a12001, // mov  x1, #0x9000000
    0xf9000020, // str  x0, [x1]
    0xd503207f, // wfi
    0xd538cc00, // mrs  x0, icc_iar1_el1
    0xf9000020, // str  x0, [x1]
];
#[rustfmt::skip]
pub(crate) const TAKE_INTERRUPT_V2: [u32; 17] = [
    0xd2a10001, // mov  x1, #0x8000000
    0x52800020, // mov  w0, #1
    0xb9000020, // str  w0, [x1]            GICD_CTLR
    0x52800040, // mov  w0, #2
    0xb9010420, // str  w0, [x1, #0x104]    GICD_ISENABLER1: INTID 33
    0x52802020, // mov  w0, #0x101
    0xb9082020, // str  w0, [x1, #0x820]    GICD_ITARGETSR8
    0xd2a10022, // mov  x2, #0x8010000
    0x52801e00, // mov  w0, #0xf0
    0xb9000440, // str  w0, [x2, #4]        GICC_PMR
    0x52800020, // mov  w0, #1
    0xb9000040, // str  w0, [x2]            GICC_CTLR
    0xd2a12001, // mov  x1, #0x9000000
    0xf9000020, // str  x0, [x1]
    0xd503207f, // wfi
    0xb9400c40, // ldr  w0, [x2, #0xc]      GICC_IAR
    0xf9000020, // str  x0, [x1]
];
