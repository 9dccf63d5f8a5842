//! The metadata service as a Linux guest finds it, by clients that nobody here wrote, over
//! one card or two, before the guest is saved and after; and that its host's network sees
//! nothing of it.

use std::fs;
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use kedge_api::http::{Method, call};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::host::{Host, Need};
use crate::kedge::{Kedge, Running, SOON};
use crate::linux::BOOT;
use crate::suite::{Outcome, Suite};
use crate::tap::Tap;

/// What the documentation has a guest's user type.
const PAGE: &str = include_str!("../../../docs/metadata.md");

/// Where it is, as on the wire.
const ADDRESS: [u8; 4] = [169, 254, 169, 254];

pub(crate) fn tests(suite: &mut Suite) {
    suite.any_kernel("metadata::a_guest_reads_it_over_every_card_it_is_behind", &[], first);
    suite.any_kernel("metadata::a_token_is_needed_and_is_lost_with_its_machine", &[], second);
    suite.every_guest("metadata::curl_gets_it_as_the_documentation_says", &[Need::Programs], curl);
}

/// A guest that asks when it is told to.
struct Asking {
    guest: Running,
    asked: usize,
}

impl Asking {
    /// What comes of a request, whose words are in `guest/metadata.sh`.
    fn ask(&mut self, words: &str) -> anyhow::Result<String> {
        self.asked += 1;
        let (begin, end) =
            (format!("=== answer {}\n", self.asked), format!("=== end {}", self.asked));
        self.guest.type_in(format!("{words}\n").as_bytes())?;
        self.guest.wait_for(&end, 1, SOON).with_context(|| format!("to `{words}`"))?;
        let said = self.guest.said().replace('\r', "");
        let (_, rest) = said.split_once(&begin).context("there is no answer")?;
        let (answer, _) = rest.split_once(&end).context("the answer has no end")?;
        Ok(answer.trim_end().to_owned())
    }

    /// Fails unless a request is answered with `status`.
    fn status(&mut self, words: &str, status: u16) -> Outcome {
        let answer = self.ask(&format!("ASK {words}"))?;
        let expected = format!("HTTP/1.1 {status} ");
        ensure!(answer.starts_with(&expected), "`{words}` is not told {status}, but {answer:?}");
        Ok(())
    }

    /// Fails unless a request is answered with `text`.
    fn finds(&mut self, words: &str, text: &str) -> Outcome {
        let answer = self.ask(words)?;
        let body = answer.rsplit("\n\n").next().unwrap_or_default();
        ensure!(body == text, "`{words}` finds {answer:?}, and not {text:?}");
        Ok(())
    }
}

/// Everything that is on the host's networks.
struct Sniffer(OwnedFd);

impl Sniffer {
    fn new() -> anyhow::Result<Self> {
        /// `ETH_P_ALL`, in the network's order.
        const ALL: u32 = 0x0300;
        let protocol = NonZeroU32::new(ALL).map(Protocol::from_raw);
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket =
            rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, flags, protocol)?;
        rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 8 << 20)?;
        Ok(Self(socket))
    }

    /// How many frames there were since it last looked, and how many of them have the
    /// service's address in them.
    fn look(&self) -> anyhow::Result<(usize, usize)> {
        let (mut all, mut ours) = (0, 0);
        let mut frame = vec![0; 1 << 16];
        while let Ok((length, _)) =
            rustix::net::recv(&self.0, frame.as_mut_slice(), RecvFlags::DONTWAIT)
        {
            all += 1;
            ours += usize::from(frame[..length].windows(4).any(|window| window == ADDRESS));
        }
        Ok((all, ours))
    }

    /// Waits for a frame with the service's address in it.
    fn wait(&self) -> Outcome {
        let end = Instant::now() + SOON;
        while self.look()?.1 == 0 {
            ensure!(Instant::now() < end, "no frame of that kind is on the host's network");
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

/// What a machine is made of, and its two taps.
struct Place {
    folder: TempDir,
    taps: [Tap; 2],
    drives: Vec<Value>,
}

impl Place {
    fn new() -> anyhow::Result<Self> {
        let tap = |number: u8| {
            Tap::new(format!("kedge-d{number}"))?.with_address(&format!("10.90.{number}.1/24"))
        };
        Ok(Self { folder: TempDir::new()?, taps: [tap(0)?, tap(1)?], drives: Vec::new() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn word(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Starts a guest with the service behind the cards of `config`, and `data` in it.
    fn start(&self, host: &Host, config: &Value, data: &Value) -> anyhow::Result<Asking> {
        fs::write(self.path("data"), data.to_string())?;
        let card = |number: usize| {
            let tap = self.taps[number].name();
            json!({"iface_id": format!("eth{number}"), "host_dev_name": tap})
        };
        let machine = json!({
            "boot-source": {
                "kernel_image_path": host.linux()?,
                "initrd_path": host.initrd()?,
                "boot_args": "console=ttyS0 loglevel=1 kedge.run=metadata",
            },
            "machine-config": {"vcpu_count": 1, "mem_size_mib": 192},
            "guest-abi": "arm64-v0",
            "drives": self.drives,
            "network-interfaces": [card(0), card(1)],
            "mmds-config": config,
        });
        fs::write(self.path("vm.json"), machine.to_string())?;
        let guest = Kedge::new(["--config-file", &self.word("vm.json")])
            .with(["--api-sock", &self.word("api"), "--metadata", &self.word("data")])
            .with(["--log-path", &self.word("log")])
            .start()?;
        guest.wait_for("=== serving", 1, BOOT)?;
        Ok(Asking { guest, asked: 0 })
    }

    /// Saves the machine of `asking`, ends it, and has it go on in another process, of which
    /// nobody has said what its guest may read.
    fn move_on(&self, asking: Asking) -> anyhow::Result<Asking> {
        let api = self.path("api");
        call(&api, Method::Patch, "/vm", Some(&json!({"state": "Paused"})))?;
        let files = json!({"snapshot_path": self.path("state"), "mem_file_path": self.path("mem")});
        call(&api, Method::Put, "/snapshot/create", Some(&files))?;
        asking.guest.terminate()?;
        let guest = Kedge::new(["--api-sock", &self.word("api"), "--log-path", &self.word("log")]);
        let guest = guest.start()?;
        appears(&api)?;
        let load = json!({
            "snapshot_path": self.path("state"), "resume_vm": true,
            "mem_backend": {"backend_type": "File", "backend_path": self.path("mem")},
        });
        call(&api, Method::Put, "/snapshot/load", Some(&load))?;
        Ok(Asking { guest, asked: asking.asked })
    }
}

fn appears(path: &Path) -> Outcome {
    let end = Instant::now() + SOON;
    while !path.exists() {
        ensure!(Instant::now() < end, "{} does not appear", path.display());
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn data() -> Value {
    json!({"latest": {"meta-data": {"id": "i-1", "tags": {"a": "b"}, "n": 3}, "user-data": "hello"}})
}

/// Version 1, behind both cards.
fn first(host: &Host) -> Outcome {
    let place = Place::new()?;
    let sniffer = Sniffer::new()?;
    let config = json!({"network_interfaces": ["eth0", "eth1"]});
    let mut guest = place.start(host, &config, &data())?;
    for card in ["eth0", "eth1"] {
        guest.finds(&format!("FETCH {card} /latest/meta-data"), "id\nn\ntags/")?;
        guest.finds(&format!("FETCH {card} /latest/user-data"), "hello")?;
    }
    guest.finds(
        "ASK eth1 GET /latest/meta-data Accept:_application/json",
        "{\"id\":\"i-1\",\"n\":3,\"tags\":{\"a\":\"b\"}}",
    )?;
    guest.status("eth0 GET latest", 400)?;
    guest.status("eth0 GET /latest/none", 404)?;
    guest.status("eth0 PATCH /latest", 405)?;
    guest.status("eth0 GET /latest/meta-data/n", 501)?;
    guest.status("eth0 GET /latest X-metadata-token:_nonsense", 200)?;

    let api = place.path("api");
    let patch = json!({"latest": {"user-data": "changed", "meta-data": null}});
    call(&api, Method::Patch, "/mmds", Some(&patch))?;
    guest.finds("FETCH eth0 /latest/user-data", "changed")?;
    guest.status("eth1 GET /latest/meta-data", 404)?;
    let long = "x".repeat(40_000);
    call(&api, Method::Put, "/mmds", Some(&json!({"long": long})))?;
    guest.finds("FETCH eth1 /long", &long)?;

    let mut guest = place.move_on(guest)?;
    guest.status("eth0 GET /long", 404)?;
    call(&api, Method::Put, "/mmds", Some(&json!({"new": "life"})))?;
    guest.finds("FETCH eth0 /new", "life")?;
    guest.finds("FETCH eth1 /new", "life")?;
    guest.guest.terminate()?;
    let (all, ours) = sniffer.look()?;
    ensure!(all > 0 && ours == 0, "of {all} frames on the host's networks, {ours} are for it");
    Ok(())
}

/// Version 2, behind the second card alone.
fn second(host: &Host) -> Outcome {
    let place = Place::new()?;
    let sniffer = Sniffer::new()?;
    let config = json!({"network_interfaces": ["eth1"], "version": "V2"});
    let mut guest = place.start(host, &config, &data())?;
    let with_token = "eth1 GET /latest X-metadata-token:_@";
    let token = "eth1 PUT /latest/api/token X-metadata-token-ttl-seconds:_";
    guest.status("eth1 GET /latest", 401)?;
    guest.status(with_token, 401)?;
    guest.status(&format!("{token}0"), 400)?;
    guest.status(&format!("{token}21601"), 400)?;
    guest.status(&format!("{token}60 X-Forwarded-For:_10.0.0.1"), 400)?;
    guest.status("eth1 PUT /latest/api/token", 400)?;
    guest.status("eth1 PUT /latest X-metadata-token-ttl-seconds:_60", 404)?;
    guest.status("eth1 DELETE /latest", 405)?;
    guest.finds("TOKEN eth1 600", "48")?;
    guest.finds("ASK eth1 GET /latest/user-data X-aws-ec2-metadata-token:_@", "hello")?;
    guest.status("eth1 GET /latest/meta-data/n X-metadata-token:_@", 501)?;
    guest.finds("TOKEN eth1 1", "48")?;
    thread::sleep(Duration::from_secs(3));
    guest.status(with_token, 401)?;
    guest.finds("TOKEN eth1 600", "48")?;
    guest.status(with_token, 200)?;
    let (all, ours) = sniffer.look()?;
    ensure!(ours == 0, "of {all} frames on the host's networks, {ours} are for it");

    let mut guest = place.move_on(guest)?;
    guest.status(with_token, 401)?;
    guest.finds("TOKEN eth1 600", "48")?;
    guest.status(with_token, 404)?;
    // Nobody is behind the other card: what the guest asks there is on the network.
    guest.guest.type_in(b"FETCH eth0 /latest\n")?;
    sniffer.wait()?;
    guest.guest.terminate()?;
    Ok(())
}

/// Both versions, by Debian's curl.
fn curl(host: &Host) -> Outcome {
    let mut place = Place::new()?;
    let programs = host.programs();
    place.drives.push(json!({
        "drive_id": "programs", "is_root_device": false, "is_read_only": true,
        "path_on_host": programs,
    }));
    let url = "http://169.254.169.254";
    let status = |guest: &mut Asking, words: &str, expected: &str| {
        let found = guest.ask(&format!("RUN curl -s -o /dev/null -w '%{{http_code}}' {words}"))?;
        ensure!(found == expected, "`{words}` is told {found}, and not {expected}");
        Ok(())
    };
    for version in ["V1", "V2"] {
        let config = json!({"network_interfaces": ["eth0"], "version": version});
        let mut guest = place.start(host, &config, &data())?;
        let (_, typed) = PAGE.split_once("```sh guest\n").context("commands for a guest")?;
        let (typed, _) = typed.split_once("```").context("their end")?;
        let mut found = String::new();
        for line in typed.lines() {
            found = guest.ask(&format!("RUN {line}"))?;
        }
        ensure!(found == "id\nn\ntags/", "{version}: what is typed finds {found:?}");
        guest.finds(
            &format!("RUN curl -s -H \"X-metadata-token: $token\" -H 'Accept: application/json' {url}/latest/meta-data"),
            "{\"id\":\"i-1\",\"n\":3,\"tags\":{\"a\":\"b\"}}",
        )?;
        let with = format!("-H \"X-metadata-token: $token\" {url}");
        status(&mut guest, &format!("{with}/latest/user-data"), "200")?;
        status(&mut guest, &format!("{with}/latest/none"), "404")?;
        status(&mut guest, &format!("{with}/latest/meta-data/n"), "501")?;
        status(&mut guest, &format!("-X DELETE {with}/latest"), "405")?;
        let without = if version == "V1" { "200" } else { "401" };
        status(&mut guest, &format!("{url}/latest/user-data"), without)?;
        status(&mut guest, &format!("-H 'X-metadata-token: x' {url}/latest/user-data"), without)?;
        let seconds = "-H 'X-metadata-token-ttl-seconds: 0'";
        status(&mut guest, &format!("-X PUT {seconds} {url}/latest/api/token"), "400")?;
        guest.guest.terminate()?;
        fs::remove_file(place.path("api")).or_else(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })?;
    }
    Ok(())
}
