//! `fctools_client FIRECRACKER KERNEL FOLDER`: a machine is started, paused, saved and
//! restored through fctools.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use anyhow::{anyhow, ensure};
use fctools::process_spawner::DirectProcessSpawner;
use fctools::runtime::tokio::TokioRuntime;
use fctools::vm::api::VmApi;
use fctools::vm::configuration::{InitMethod, VmConfiguration, VmConfigurationData};
use fctools::vm::models::{BootSource, CreateSnapshot, Drive, MachineConfiguration, SnapshotType};
use fctools::vm::snapshot::PrepareVmFromSnapshotOptions;
use fctools::vmm::arguments::{VmmApiSocket, VmmArguments};
use fctools::vmm::executor::unrestricted::UnrestrictedVmmExecutor;
use fctools::vmm::id::VmmId;
use fctools::vmm::installation::VmmInstallation;
use fctools::vmm::ownership::VmmOwnershipModel;
use fctools::vmm::resource::system::ResourceSystem;
use fctools::vmm::resource::{MovedResourceType, Resource, ResourceType};
use kedge_clients::{Said, Told};
use tokio::fs::OpenOptions;

type Vm = fctools::vm::Vm<UnrestrictedVmmExecutor, DirectProcessSpawner, TokioRuntime>;
type Resources = ResourceSystem<DirectProcessSpawner, TokioRuntime>;

/// Bytes of the disk.
const DISK: u64 = 1 << 20;
/// How long the process may take to answer.
const SOON: Duration = Duration::from_secs(30);

fn main() -> anyhow::Result<()> {
    let told = Told::read()?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(drive(&told))
}

async fn drive(told: &Told) -> anyhow::Result<()> {
    let output = told.path("output");
    let said = Said(&output);
    File::create(&output)?;
    File::create(told.path("disk"))?.set_len(DISK)?;

    let mut born = describe(told).await?;
    start(&mut born, &output).await?;
    said.goes_on()?;
    let version = born.get_firecracker_version().await.map_err(wrong)?;
    ensure!(version.split('.').count() == 3, "a strange version: {version}");
    let config = born.get_machine_configuration().await.map_err(wrong)?;
    ensure!(config.mem_size_mib == 16, "it has {} MiB", config.mem_size_mib);
    born.pause().await.map_err(wrong)?;
    said.stands_still()?;
    ensure!(born.get_info().await.map_err(wrong)?.is_paused, "it is not paused");
    let resources = born.get_resource_system_mut();
    let snapshot = resources.create_resource(told.path("state"), ResourceType::Produced);
    let mem_file = resources.create_resource(told.path("memory"), ResourceType::Produced);
    let (snapshot, mem_file) = (snapshot.map_err(wrong)?, mem_file.map_err(wrong)?);
    let full = CreateSnapshot { snapshot_type: Some(SnapshotType::Full), snapshot, mem_file };
    let saved = born.create_snapshot(full).await.map_err(wrong)?;
    born.resume().await.map_err(wrong)?;
    said.goes_on()?;

    let options = PrepareVmFromSnapshotOptions {
        executor: executor(told, "restored")?,
        process_spawner: DirectProcessSpawner,
        runtime: TokioRuntime,
        moved_resource_type: MovedResourceType::HardLinked,
        ownership_model: VmmOwnershipModel::Shared,
        enable_diff_snapshots: None,
        resume_vm: Some(true),
    };
    let restored = saved.prepare_vm(&mut born, options).await;
    let mut restored = restored.map_err(wrong)?;
    end(&mut born).await?;
    start(&mut restored, &output).await?;
    ensure!(!restored.get_info().await.map_err(wrong)?.is_paused, "it is paused");
    said.goes_on()?;
    said.began(1)?;
    end(&mut restored).await?;
    println!("fctools: done");
    Ok(())
}

/// A machine that waits to be started.
async fn describe(told: &Told) -> anyhow::Result<Vm> {
    let mut resources =
        Resources::new(DirectProcessSpawner, TokioRuntime, VmmOwnershipModel::Shared);
    let mut file = |path: &Path| -> anyhow::Result<Resource> {
        let moved = ResourceType::Moved(MovedResourceType::HardLinkedOrCopied);
        resources.create_resource(path, moved).map_err(wrong)
    };
    let boot_source = BootSource {
        kernel_image: file(&told.kernel)?,
        boot_args: Some("console=ttyS0".to_owned()),
        initrd: None,
    };
    let disk = Drive {
        drive_id: "disk".to_owned(),
        is_root_device: false,
        cache_type: None,
        partuuid: None,
        is_read_only: Some(false),
        block: Some(file(&told.path("disk"))?),
        rate_limiter: None,
        io_engine: None,
        socket: None,
    };
    let data = VmConfigurationData {
        boot_source,
        drives: vec![disk],
        machine_configuration: MachineConfiguration {
            vcpu_count: 1,
            mem_size_mib: 16,
            smt: None,
            track_dirty_pages: Some(true),
            huge_pages: None,
        },
        cpu_template: None,
        network_interfaces: Vec::new(),
        balloon_device: None,
        vsock_device: None,
        logger_system: None,
        metrics_system: None,
        mmds_configuration: None,
        entropy_device: None,
    };
    let described = VmConfiguration::New { init_method: InitMethod::ViaApiCalls, data };
    let nothing = told.path("nothing");
    let installation = VmmInstallation::new(told.firecracker.clone(), nothing.clone(), nothing);
    Vm::prepare(executor(told, "born")?, resources, installation, described).await.map_err(wrong)
}

/// What starts the process of the machine called `name`.
fn executor(told: &Told, name: &str) -> anyhow::Result<UnrestrictedVmmExecutor> {
    let socket = VmmApiSocket::Enabled(told.path(&format!("{name}.socket")));
    let id = VmmId::new(format!("machine-{name}")).map_err(wrong)?;
    Ok(UnrestrictedVmmExecutor::new(VmmArguments::new(socket)).id(id))
}

/// Starts it; what its guest says goes into the file at `output`.
async fn start(vm: &mut Vm, output: &Path) -> anyhow::Result<()> {
    vm.start(SOON).await.map_err(wrong)?;
    let mut said = vm.take_pipes().map_err(wrong)?.stdout.into_inner();
    let mut file = OpenOptions::new().append(true).open(output).await?;
    tokio::spawn(async move { tokio::io::copy(&mut said, &mut file).await });
    Ok(())
}

/// Ends it.
async fn end(vm: &mut Vm) -> anyhow::Result<()> {
    use fctools::vm::shutdown::{VmShutdownAction, VmShutdownMethod};
    let killed =
        VmShutdownAction { method: VmShutdownMethod::Kill, timeout: Some(SOON), graceful: false };
    vm.shutdown([killed]).await.map_err(wrong)?;
    Ok(())
}

fn wrong(error: impl std::error::Error) -> anyhow::Error {
    anyhow!("{error}: {error:?}")
}
