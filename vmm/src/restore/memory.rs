//! Where a restored guest's memory comes from, and on which pages of the host's.

use std::path::PathBuf;

use kedge_saved_state::Image;

/// Where a restored guest's memory comes from.
#[derive(Debug)]
pub enum MemorySource<'s> {
    /// The snapshot's memory file, as the guest touches it; what it writes stays its own.
    File(&'s Image),
    /// A page server on this socket, as the guest touches it: another process, which is
    /// told of the memory as Firecracker tells its handlers. Should it end, the machine
    /// does.
    Served(PathBuf),
}

/// How large the host's pages behind a guest's memory are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pages {
    /// As they were where the guest was saved.
    #[default]
    AsSaved,
    /// As small as the host has them.
    Small,
    /// Huge ones where the host has them at hand: seldom where the memory is a file's, since
    /// what a guest writes to is copied page by page, more often where a page server has it.
    Transparent,
    /// Of 2 MiB each, from the host's pool (hugetlbfs). Only a page server can fill these.
    Huge2M,
}

/// What is asked of a restored guest's memory.
#[derive(Debug)]
pub(crate) struct WantedMemory<'s> {
    pub(crate) source: MemorySource<'s>,
    pub(crate) pages: Pages,
    pub(crate) working_set: Option<PathBuf>,
}
