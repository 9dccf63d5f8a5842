//! Lines of metrics in real files and FIFOs.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use kedge_api::call::Metrics;
use kedge_diag::one_line;
use kedge_vmm::metrics::Outcome;
use serde_json::Value;

use super::{Act, Metering};

/// The lines of a file that are complete: one is being written perhaps, a page at a time.
fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole.map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn there_is_a_first_line_one_every_period_and_a_last() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics");
    let metering = Metering::new("vm", None);
    metering.begin();
    metering.finish();
    let wanted = Metrics {
        emit_id: true,
        properties: Some([("zone".to_owned(), "a".to_owned())].into()),
        ..Metrics::to(path.clone())
    };
    metering.open(&wanted).unwrap();
    metering.begin_every(Duration::from_millis(1));
    while lines(&path).len() < 4 {
        thread::yield_now();
    }
    metering.done(Act::Pause, Duration::from_micros(77));
    metering.asked("PUT /mmds".to_owned(), Duration::ZERO, Outcome::Done);
    metering.asked("PUT /mmds/config".to_owned(), Duration::ZERO, Outcome::Failed);
    metering.finish();
    assert!(fs::read_to_string(&path).unwrap().ends_with('\n'));
    let lines = lines(&path);
    let last = lines.last().unwrap();
    assert_eq!(last["id"], "vm");
    assert_eq!(last["properties"]["zone"], "a");
    assert_eq!(last["latencies_us"]["vmm_pause_vm"], 77);
    let sum = |key: &str| {
        lines.iter().filter_map(|line| line["put_api_requests"][key].as_u64()).sum::<u64>()
    };
    assert_eq!([sum("mmds_count"), sum("mmds_fails")], [2, 1]);
}

#[test]
fn what_nobody_reads_is_counted_and_said_later() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let metering = Metering::new("vm", None);
    metering.open(&Metrics::to(path.clone())).unwrap();
    let error = loop {
        if let Err(error) = metering.write() {
            break one_line(&error).replace(&path.display().to_string(), "FIFO");
        }
    };
    assert_eq!(
        error,
        "no line can be written to `FIFO`; because: Resource temporarily unavailable (os error 11); \
         fix: have somebody read the FIFO"
    );
    assert!(metering.prometheus().contains("kedge_logger_missed_metrics_count_total 1\n"));
}

#[test]
fn a_disk_that_is_full_is_told_of() {
    let metering = Metering::new("vm", None);
    metering.open(&Metrics::to("/dev/full".into())).unwrap();
    let error = one_line(&metering.write().unwrap_err());
    assert_eq!(
        error,
        "no line can be written to `/dev/full`; because: No space left on device (os error 28); \
         fix: see that there is room for more"
    );
    metering.begin();
    metering.finish();
}
