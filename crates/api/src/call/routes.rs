//! Every resource and what can be done with it: a row each. A path's words are looked at
//! as far as a row needs them, and what follows is ignored, as Firecracker does: where one
//! path begins as another does, the longer comes first.

use std::fmt;
use std::iter;

use kedge_devices::virtio::catalog::{KINDS, Kind};

use super::{
    Call, Fault, Parsed, action, change, clone, device, guest, logger, machine, metadata, metrics,
    snapshot, state,
};
use crate::http::Method;

/// A resource and what can be done with it.
#[derive(Clone, Debug)]
pub struct Route {
    /// What can be done.
    pub method: Method,
    /// With what: `/drives/{drive_id}`.
    pub path: String,
    read: Reader,
}

/// How a request is understood.
#[derive(Clone, Copy, Debug)]
enum Reader {
    /// It has no body.
    Bare(fn() -> Call),
    /// Its body says more.
    Body(fn(&[u8]) -> Result<Parsed, Fault>),
    /// Its body describes a device.
    Device(&'static Kind),
    /// Its body says how a device of a running machine is to become another.
    Change(&'static Kind),
    /// It takes a device away.
    Removal(&'static Kind),
    /// kedge has nothing of the kind: what it is, and what clients' messages about it begin
    /// with.
    Absent([&'static str; 2]),
}

use Method::{Delete, Get, Patch, Put};
use Reader::{Absent, Bare, Body};

const BALLOON: Reader = Absent(["balloon device", "Balloon config error: "]);
const MEMORY: Reader = Absent(["memory that is plugged in", "Memory hotplug config error: "]);
const PMEM: Reader = Absent(["pmem devices", "Pmem config error: "]);

#[rustfmt::skip]
const ROWS: &[(Method, &str, Reader)] = &[
    (Get,    "/",                       Bare(|| Call::Describe)),
    (Get,    "/version",                Bare(|| Call::Version)),
    (Get,    "/openapi.json",           Bare(|| Call::OpenApi)),
    (Get,    "/vm/config",              Bare(|| Call::ShowConfig)),
    (Patch,  "/vm",                     Body(state::read)),
    (Put,    "/actions",                Body(action::read)),
    (Get,    "/machine-config",         Bare(|| Call::ShowMachine)),
    (Put,    "/machine-config",         Body(machine::read_config)),
    (Patch,  "/machine-config",         Body(machine::read_change)),
    (Put,    "/boot-source",            Body(machine::read_boot)),
    (Put,    "/cpu-config",             Body(guest::read_cpu_config)),
    (Put,    "/guest-abi",              Body(guest::read_profile)),
    (Put,    "/serial",                 Body(machine::read_serial)),
    (Put,    "/logger",                 Body(logger::read)),
    (Get,    "/events",                 Bare(|| Call::Listen)),
    (Put,    "/metrics",                Body(metrics::read)),
    (Get,    "/metrics",                Bare(|| Call::ShowMetrics)),
    (Put,    "/mmds/config",            Body(metadata::read_config)),
    (Get,    "/mmds",                   Bare(|| Call::ShowMetadata)),
    (Put,    "/mmds",                   Body(metadata::read_data)),
    (Patch,  "/mmds",                   Body(metadata::read_change)),
    (Put,    "/snapshot/create",        Body(snapshot::read_create)),
    (Put,    "/snapshot/load",          Body(snapshot::read_load)),
    (Put,    "/snapshot/check",         Body(snapshot::read_check)),
    (Put,    "/clone",                  Body(clone::read)),
    // What kedge has not.
    (Get,    "/balloon/statistics",     BALLOON),
    (Patch,  "/balloon/statistics",     BALLOON),
    (Patch,  "/balloon/hinting/start",  BALLOON),
    (Get,    "/balloon/hinting/status", BALLOON),
    (Patch,  "/balloon/hinting/stop",   BALLOON),
    (Get,    "/balloon",                BALLOON),
    (Put,    "/balloon",                BALLOON),
    (Patch,  "/balloon",                BALLOON),
    (Put,    "/pmem/{id}",              PMEM),
    (Patch,  "/pmem/{id}",              PMEM),
    (Delete, "/pmem/{id}",              PMEM),
    (Put,    "/hotplug/memory",         MEMORY),
    (Get,    "/hotplug/memory",         MEMORY),
    (Patch,  "/hotplug/memory",         MEMORY),
];

/// Every resource, those of devices behind the others.
pub fn routes() -> impl Iterator<Item = Route> {
    let plain = ROWS.iter().map(|&(method, path, read)| (method, path.to_owned(), read));
    let devices = KINDS.iter().flat_map(|kind| of_kind(kind));
    plain.chain(devices).map(|(method, path, read)| Route { method, path, read })
}

fn of_kind(kind: &'static Kind) -> impl Iterator<Item = (Method, String, Reader)> {
    let path = match kind.many {
        true => format!("/{}/{{{}}}", kind.key, kind.id_field),
        false => format!("/{}", kind.key),
    };
    let removal = kind.many.then(|| (Delete, path.clone(), Reader::Removal(kind)));
    let change = kind.change.map(|_| (Patch, path.clone(), Reader::Change(kind)));
    iter::once((Put, path, Reader::Device(kind))).chain(change).chain(removal)
}

/// Whether a path of `words` begins as `path`. The root stands for itself alone.
fn fits(path: &str, words: &[&str]) -> bool {
    let mut words = words.iter();
    match path {
        "/" => words.eq([&""]),
        // A name that is not there is an empty one.
        path => template(path)
            .all(|part| words.next().map_or(is_name(part), |word| is_name(part) || *word == part)),
    }
}

fn template(path: &str) -> impl Iterator<Item = &str> {
    path.trim_start_matches('/').split('/')
}

/// Whether a word of a path stands for a name.
fn is_name(word: &str) -> bool {
    word.starts_with('{')
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

impl Route {
    /// The row for `method` and `path`, and the name in the path.
    ///
    /// # Errors
    /// There is none, or the name cannot be one.
    pub fn find(method: Method, path: &str) -> Result<(Self, Option<String>), Fault> {
        let words: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let route = routes().find(|route| route.method == method && fits(&route.path, &words));
        let Some(route) = route else {
            let others = routes().filter(|route| fits(&route.path, &words));
            let others: Vec<_> = others.map(|route| route.method.name()).collect();
            let path = path.to_owned();
            return Err(Fault::NoRoute { method, path, methods: others.join(", ") });
        };
        let place = template(&route.path).position(is_name);
        let id = place.map(|place| words.get(place).copied().unwrap_or_default().to_owned());
        id.as_deref().map_or(Ok(()), device::check_name)?;
        Ok((route, id))
    }

    /// What a request with `body`, for the device `id` where it is for one, asks for.
    ///
    /// # Errors
    /// The body is not right.
    pub fn read(&self, id: Option<&str>, body: &[u8]) -> Result<Parsed, Fault> {
        match (self.read, body.is_empty()) {
            (Absent([what, begin]), _) => Err(Fault::Absent { what, begin }),
            (Bare(call), true) => Ok(call().into()),
            (Reader::Removal(kind), true) => {
                let id = id.unwrap_or_default().to_owned();
                Ok(Call::Remove { kind, id }.into())
            }
            (Bare(_) | Reader::Removal(_), false) => Err(Fault::Surplus(self.method)),
            (Body(_) | Reader::Device(_) | Reader::Change(_), true) => {
                Err(Fault::Empty(self.method))
            }
            (Body(read), false) => read(body),
            (Reader::Device(kind), false) => device::read(kind, id, body),
            (Reader::Change(kind), false) => change::read(kind, id.unwrap_or_default(), body),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_not_hidden_behind_one_before_it() {
        for route in routes() {
            let path = route.path.replace(['{', '}'], "");
            let (found, _) = Route::find(route.method, &path).unwrap();
            assert_eq!((found.method, found.path), (route.method, route.path));
        }
    }
}
