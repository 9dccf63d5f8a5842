//! What is beside a machine in its process, whatever becomes of the machine: what its guest
//! may read of its host, and what is counted.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use kedge_api::http::Limits;
use kedge_diag::Fix;
use kedge_vmm::Surroundings;
use kedge_vmm::metadata::{Service, StoreError};
use kedge_vmm::metrics::Counters;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::boot_timer::Began;
use crate::events::Events;
use crate::logging::Control as LogControl;
use crate::metering::Metering;

/// What is beside a machine. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Companions {
    metadata: Arc<Metadata>,
    /// All that is counted.
    pub(crate) metering: Metering,
    /// Who hears of what becomes of it.
    pub(crate) events: Events,
    /// Whether its guest says when it is up.
    pub(crate) boot_timer: bool,
}

/// The metadata service, which is made when it is first asked for.
#[derive(Debug)]
struct Metadata {
    id: String,
    limit: usize,
    service: OnceLock<Arc<Service>>,
}

/// Metadata that a guest cannot be given.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadMetadata {
    /// Its file cannot be read.
    #[error("cannot read the metadata in `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// It is no JSON.
    #[error("the metadata in `{}` is not JSON", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The service does not take it.
    #[error("the metadata in `{}` cannot be had", path.display())]
    Store {
        /// The file.
        path: PathBuf,
        /// Why.
        source: StoreError,
    },
}

impl Fix for BadMetadata {
    fn fix(&self) -> Option<String> {
        match self {
            Self::Read { .. } => Some("name a file that exists and can be read".to_owned()),
            Self::Json { .. } => Some("mend the JSON at that line and column".to_owned()),
            Self::Store { source, .. } => source.fix(),
        }
    }
}

impl Companions {
    /// Those of the machine called `id`, whose metadata may take `limit` bytes, and whose
    /// log is `log`, where that counts as well.
    pub(crate) fn new(id: &str, limit: usize, log: Option<LogControl>) -> Self {
        let metadata = Metadata { id: id.to_owned(), limit, service: OnceLock::new() };
        let (metering, events) = (Metering::new(id, log), Events::new(id));
        Self { metadata: Arc::new(metadata), metering, events, boot_timer: false }
    }

    /// Those of a machine of which nothing is said about them.
    pub(crate) fn usual(id: &str) -> Self {
        Self::new(id, Limits::default().body, None)
    }

    /// The metadata service, which the guest finds where its machine has it.
    pub(crate) fn metadata(&self) -> &Arc<Service> {
        self.metadata.service.get_or_init(|| {
            let service = Arc::new(Service::new(&self.metadata.id, self.metadata.limit, random));
            let counters: Arc<dyn Counters> = Arc::<Service>::clone(&service);
            self.metering.registry().add("mmds", None, counters);
            service
        })
    }

    /// Has the guest read what is in the file at `path`.
    ///
    /// # Errors
    /// There is no metadata there.
    pub(crate) fn read_metadata(&self, path: &Path) -> Result<(), BadMetadata> {
        let text = fs::read_to_string(path);
        let text = text.map_err(|source| BadMetadata::Read { path: path.to_owned(), source })?;
        let data = serde_json::from_str(&text);
        let data = data.map_err(|source| BadMetadata::Json { path: path.to_owned(), source })?;
        let put = self.metadata().put(data);
        put.map_err(|source| BadMetadata::Store { path: path.to_owned(), source })
    }

    /// Surroundings with them, for a machine that is asked for now.
    pub(crate) fn around(&self, surroundings: Surroundings) -> Surroundings {
        let (own, events) = (self.clone(), self.events.clone());
        let surroundings = match self.boot_timer {
            true => {
                let began = Began::now();
                surroundings.on_up(move || began.log())
            }
            false => surroundings,
        };
        surroundings
            .with_metadata(move || Arc::clone(own.metadata()))
            .with_metrics(self.metering.registry())
            .on_event(move |event| events.tell(event))
    }
}

/// The host's random bytes.
fn random(mut buffer: &mut [u8]) -> io::Result<()> {
    while !buffer.is_empty() {
        let filled = getrandom(&mut *buffer, GetRandomFlags::empty())?;
        buffer = buffer.get_mut(filled..).unwrap_or_default();
    }
    Ok(())
}
