//! `rs_sdk_client FIRECRACKER KERNEL FOLDER`: a machine is started, paused, saved and
//! restored through firecracker-rs-sdk.

use std::fs::File;

use anyhow::{Context, ensure};
use firecracker_rs_sdk::firecracker::FirecrackerOption;
use firecracker_rs_sdk::instance::Instance;
use firecracker_rs_sdk::models::{
    BackendType, BootSource, Drive, MachineConfiguration, MemoryBackend, SnapshotCreateParams,
    SnapshotLoadParams, SnapshotType,
};
use kedge_clients::{Said, Told};

/// Bytes of the disk.
const DISK: u64 = 1 << 20;

fn main() -> anyhow::Result<()> {
    let told = Told::read()?;
    // The SDK empties what a process writes to before it starts it.
    let outputs = [told.path("born.output"), told.path("restored.output")];
    let said = Said(&outputs[0]);
    File::create(told.path("disk"))?.set_len(DISK)?;

    let mut born = process(&told, "born")?;
    let version = born.get_firecracker_version()?.firecracker_version;
    ensure!(version.split('.').count() == 3, "a strange version: {version}");
    describe(&mut born, &told)?;
    born.start()?;
    said.goes_on()?;
    born.pause()?;
    said.stands_still()?;
    let info = born.describe_instance()?;
    ensure!(info.id == "born", "it is called {}", info.id);
    born.create_snapshot(&SnapshotCreateParams {
        mem_file_path: told.path("memory"),
        snapshot_path: told.path("state"),
        snapshot_type: Some(SnapshotType::Full),
        version: None,
    })?;
    born.resume()?;
    said.goes_on()?;
    drop(born);

    let mut restored = process(&told, "restored")?;
    let backend =
        MemoryBackend { backend_type: BackendType::File, backend_path: told.path("memory") };
    restored.load_snapshot(&SnapshotLoadParams {
        enable_diff_snapshots: None,
        mem_file_path: None,
        mem_backend: Some(backend),
        resume_vm: Some(true),
        snapshot_path: told.path("state"),
    })?;
    let said = Said(&outputs[1]);
    said.goes_on()?;
    said.began(0)?;
    println!("firecracker-rs-sdk: done");
    Ok(())
}

/// A process called `id` that waits for its machine.
fn process(told: &Told, id: &str) -> anyhow::Result<Instance> {
    let mut options = FirecrackerOption::new(&told.firecracker);
    options.api_sock(told.path(&format!("{id}.socket"))).id(id);
    options.stdout(told.path(&format!("{id}.output"))).stderr(told.path(&format!("{id}.log")));
    let mut instance = options.build()?;
    instance.start_vmm().context("the process does not answer")?;
    Ok(instance)
}

/// Says what the machine is.
fn describe(instance: &mut Instance, told: &Told) -> anyhow::Result<()> {
    let config = MachineConfiguration {
        cpu_template: None,
        smt: None,
        mem_size_mib: 16,
        track_dirty_pages: Some(true),
        vcpu_count: 1,
        huge_pages: None,
    };
    instance.put_machine_configuration(&config)?;
    let known = instance.get_machine_configuration()?;
    ensure!(known.mem_size_mib == 16, "it has {} MiB", known.mem_size_mib);
    instance.put_guest_boot_source(&BootSource {
        boot_args: Some("console=ttyS0".into()),
        initrd_path: None,
        kernel_image_path: told.kernel.clone(),
    })?;
    instance.put_guest_drive_by_id(&Drive {
        drive_id: "disk".into(),
        partuuid: None,
        is_root_device: false,
        cache_type: None,
        is_read_only: false,
        path_on_host: told.path("disk"),
        rate_limiter: None,
        io_engine: None,
        socket: None,
    })?;
    Ok(())
}
