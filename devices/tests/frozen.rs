//! Saved structs as bytes: what a release has written, every later one reads. A
//! difference here is a new version of a struct, never a new golden text.

use expect_test::{Expect, expect};
use kedge_devices::generation::saved::GenerationV1;
use kedge_devices::pci::saved::{MsixVectorV1, PortV1};
use kedge_devices::rtc::saved::Pl031V1;
use kedge_devices::serial::saved::SerialV1;
use kedge_devices::virtio::block::saved::BlockV1;
use kedge_devices::virtio::limits::saved::{BucketV1, LimitsV1};
use kedge_devices::virtio::net::saved::{NetV1, PairsV1};
use kedge_devices::virtio::rng::saved::RngV1;
use kedge_devices::virtio::transport::saved::{PciTransportV1, QueueV1, TransportV1};
use kedge_devices::virtio::vsock::saved::VsockV1;
use kedge_devices::vmclock::saved::VmClockV1;
use kedge_saved_state::{Bytes, Part, Versioned};

/// `state` as a line of text, with what is text in it readable.
fn line<T: Versioned>(state: &T) -> String {
    let Part { kind, version, body } = Part::of(state);
    format!("{kind} {version}: {}", body.escape_ascii())
}

fn frozen<T: Versioned>(state: &T, expected: &Expect) {
    expected.assert_eq(&line(state));
}

#[test]
fn the_transport_on_pci() {
    let vector = MsixVectorV1 { address: 0x809_0040, data: 3, masked: false, pending: true };
    let transport = PciTransportV1 {
        config: Bytes(vec![0xf4, 0x1a]),
        config_vector: 0xffff,
        queue_vectors: vec![1],
        vectors: vec![vector],
        transport: Part::of(&RngV1 { limits: None }),
    };
    frozen(
        &transport,
        &expect![[
            r#"virtio-pci 1: \xa5fconfigB\xf4\x1amconfig_vector\x19\xff\xffmqueue_vectors\x81\x01gvectors\x81\xa4gaddress\x1a\x08\t\x00@ddata\x03fmasked\xf4gpending\xf5itransport\xa3dkindjvirtio-rnggversion\x01dbodyA\xa0"#
        ]],
    );
}

#[test]
fn the_port() {
    let vector = MsixVectorV1 { address: 0x809_0040, data: 3, masked: true, pending: false };
    let port = PortV1 { config: Bytes(vec![0x36, 0x1b]), vectors: vec![vector], is_to_ask: true };
    frozen(
        &port,
        &expect![[
            r#"pci-port 1: \xa3fconfigB6\x1bgvectors\x81\xa4gaddress\x1a\x08\t\x00@ddata\x03fmasked\xf5gpending\xf4iis_to_ask\xf5"#
        ]],
    );
}

#[test]
fn the_transport() {
    let queue = QueueV1 {
        max_size: 256,
        size: 128,
        ready: true,
        descriptor_table: 0x8000_0000,
        available_ring: 0x8000_1000,
        used_ring: 0x8000_2000,
        next_available: 7,
        next_used: 6,
    };
    let transport = TransportV1 {
        device_id: 4,
        status: 15,
        needs_reset: false,
        offered: 0x101_3000_0000,
        accepted: 0x1_0000_0000,
        strange_features: false,
        device_features_select: 1,
        driver_features_select: 2,
        queue_select: 3,
        interrupt_status: 1,
        config_generation: 5,
        queues: vec![queue],
        device: Part::of(&RngV1 { limits: None }),
    };
    frozen(
        &transport,
        &expect![[
            r#"virtio-mmio 1: \xadidevice_id\x04fstatus\x0fkneeds_reset\xf4goffered\x1b\x00\x00\x01\x010\x00\x00\x00haccepted\x1b\x00\x00\x00\x01\x00\x00\x00\x00pstrange_features\xf4vdevice_features_select\x01vdriver_features_select\x02lqueue_select\x03pinterrupt_status\x01qconfig_generation\x05fqueues\x81\xa8hmax_size\x19\x01\x00dsize\x18\x80eready\xf5pdescriptor_table\x1a\x80\x00\x00\x00navailable_ring\x1a\x80\x00\x10\x00iused_ring\x1a\x80\x00 \x00nnext_available\x07inext_used\x06fdevice\xa3dkindjvirtio-rnggversion\x01dbodyA\xa0"#
        ]],
    );
}

#[test]
fn the_disk() {
    let disk = BlockV1 {
        sectors: 8,
        block_size: 512,
        seg_max: 254,
        serial: Bytes(b"12345678901234567890".to_vec()),
        read_only: false,
        flush: true,
        physical_exp: None,
        write_through: false,
        limits: None,
    };
    frozen(
        &disk,
        &expect![[
            r#"virtio-block 1: \xa6gsectors\x08jblock_size\x19\x02\x00gseg_max\x18\xfefserialT12345678901234567890iread_only\xf4eflush\xf5"#
        ]],
    );
}

#[test]
fn the_network_interface() {
    let card = NetV1 {
        mac: Some([6, 0, 0xac, 0x10, 0, 2]),
        mtu: None,
        frame: Bytes(vec![0; 12]),
        pairs: None,
        rx_limits: None,
        tx_limits: None,
    };
    frozen(
        &card,
        &expect![[
            r#"virtio-net 1: \xa3cmac\x86\x06\x00\x18\xac\x10\x00\x02cmtu\xf6eframeL\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"#
        ]],
    );
}

#[test]
fn the_network_interface_with_several_pairs_of_queues_and_limits() {
    let pairs = Some(PairsV1 { in_use: 2, frames: vec![Bytes(vec![0; 12]), Bytes(Vec::new())] });
    let bucket = BucketV1 { budget: -7, burst: 8 };
    let rx_limits = Some(LimitsV1 { bandwidth: Some(bucket), ops: None });
    let tx_limits = Some(LimitsV1 { bandwidth: None, ops: Some(bucket) });
    let card =
        NetV1 { mac: None, mtu: Some(1400), frame: Bytes(Vec::new()), pairs, rx_limits, tx_limits };
    frozen(
        &card,
        &expect![[
            r#"virtio-net 1: \xa6cmac\xf6cmtu\x19\x05xeframe@epairs\xa2fin_use\x02fframes\x82L\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00@irx_limits\xa1ibandwidth\xa2fbudget&eburst\x08itx_limits\xa1cops\xa2fbudget&eburst\x08"#
        ]],
    );
}

#[test]
fn the_vsock_device() {
    frozen(
        &VsockV1 { guest_cid: 3, next_port: 0x4000_0001 },
        &expect![[r#"virtio-vsock 1: \xa2iguest_cid\x03inext_port\x1a@\x00\x00\x01"#]],
    );
}

#[test]
fn the_serial_port() {
    let port = SerialV1 {
        divisor_low: 1,
        divisor_high: 2,
        interrupt_enable: 3,
        interrupt_identification: 4,
        line_control: 5,
        line_status: 0x61,
        modem_control: 7,
        modem_status: 8,
        scratch: 9,
        received: Bytes(b"ls".to_vec()),
    };
    frozen(
        &port,
        &expect![[
            r#"ns16550a 1: \xaakdivisor_low\x01ldivisor_high\x02pinterrupt_enable\x03x\x18interrupt_identification\x04lline_control\x05kline_status\x18ammodem_control\x07lmodem_status\x08gscratch\threceivedBls"#
        ]],
    );
}

#[test]
fn the_real_time_clock() {
    let clock = Pl031V1 { offset: 1, match_at: 2, load: 3, masked_in: true, raised: false };
    frozen(
        &clock,
        &expect![[r#"pl031 1: \xa5foffset\x01hmatch_at\x02dload\x03imasked_in\xf5fraised\xf4"#]],
    );
}

#[test]
fn what_tells_of_a_restore() {
    frozen(&GenerationV1 {}, &expect![[r#"vmgenid 1: \xa0"#]]);
    frozen(
        &VmClockV1 { sequence: 2, disruptions: 3, generations: 4 },
        &expect![[r#"vmclock 1: \xa3hsequence\x02kdisruptions\x03kgenerations\x04"#]],
    );
}
