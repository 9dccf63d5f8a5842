//! Every answer there is, to the letter.

use std::sync::atomic::Ordering;
use std::time::Duration;

use expect_test::{Expect, expect};
use serde_json::json;

use super::*;
use crate::guest_http::read;
use crate::service::random_enough;

struct Guest {
    service: Service,
    rules: Rules,
    now: Instant,
}

impl Guest {
    fn new(version: Version, imds_compat: bool) -> Self {
        let service = Service::new("web", 1000, random_enough);
        service
            .put(json!({"latest": {"meta-data": {"id": "i-1", "n": 3, "tags": {}}}, "a": "b"}))
            .unwrap();
        Self { service, rules: Rules { version, imds_compat }, now: Instant::now() }
    }

    fn ask(&self, request: &str) -> String {
        let text = format!("{request}\r\n\r\n");
        let (request, _) = read(text.as_bytes()).unwrap().unwrap();
        let answer = answer(&self.service, self.rules, &request, self.now);
        String::from_utf8(answer.write(request.minor, request.last)).unwrap()
    }

    fn status(&self, request: &str) -> u16 {
        self.ask(request)["HTTP/1.1 ".len()..][..3].parse().unwrap()
    }

    fn token(&self) -> String {
        let answer = self.ask("PUT /latest/api/token HTTP/1.1\r\nX-metadata-token-ttl-seconds: 60");
        answer.rsplit("\r\n").next().unwrap().to_owned()
    }

    fn is_told(&self, request: &str, expected: &Expect) {
        expected.assert_eq(&self.ask(request).replace('\r', ""));
    }
}

#[test]
fn what_is_found_is_text_unless_json_is_accepted() {
    let guest = Guest::new(Version::V1, false);
    guest.is_told(
        "GET /latest/meta-data HTTP/1.1",
        &expect![[r#"
            HTTP/1.1 200 
            Server: Firecracker API
            Connection: keep-alive
            Content-Type: text/plain
            Content-Length: 10

            id
            n
            tags/"#]],
    );
    guest.is_told(
        "GET /latest/meta-data HTTP/1.0\r\nAccept: application/json",
        &expect![[r#"
            HTTP/1.0 200 
            Server: Firecracker API
            Connection: close
            Content-Type: application/json
            Content-Length: 28

            {"id":"i-1","n":3,"tags":{}}"#]],
    );
}

#[test]
fn a_clouds_clients_get_text_whatever_they_accept() {
    let guest = Guest::new(Version::V1, true);
    let answer = guest.ask("GET /a HTTP/1.1\r\nAccept: application/json");
    assert!(answer.contains("text/plain") && answer.ends_with("\r\n\r\nb"), "{answer}");
    assert_eq!(guest.status("GET /latest/meta-data/n HTTP/1.1\r\nAccept: application/json"), 501);
}

#[test]
fn what_is_not_found_or_has_no_text_says_so() {
    let guest = Guest::new(Version::V1, false);
    guest.is_told(
        "GET /latest/nothing HTTP/1.1",
        &expect![[r#"
            HTTP/1.1 404 
            Server: Firecracker API
            Connection: keep-alive
            Content-Type: text/plain
            Content-Length: 36

            Resource not found: /latest/nothing."#]],
    );
    guest.is_told(
        "GET /latest/meta-data/n HTTP/1.1",
        &expect![[r#"
            HTTP/1.1 501 
            Server: Firecracker API
            Connection: keep-alive
            Content-Type: text/plain
            Content-Length: 57

            Cannot retrieve value. The value has an unsupported type."#]],
    );
}

#[test]
fn other_methods_are_told_of_those_there_are() {
    let guest = Guest::new(Version::V2, false);
    guest.is_told(
        "PATCH / HTTP/1.1",
        &expect![[r#"
            HTTP/1.1 405 
            Server: Firecracker API
            Connection: keep-alive
            Allow: GET, PUT
            Content-Type: text/plain
            Content-Length: 53

            the metadata service answers GET, and PUT for a token"#]],
    );
    assert_eq!(guest.status("DELETE /latest HTTP/1.1"), 405);
    assert_eq!(guest.status("POST /latest/api/token HTTP/1.1"), 405);
}

#[test]
fn a_target_is_a_path_or_has_one() {
    let guest = Guest::new(Version::V1, false);
    assert_eq!(guest.status("GET a HTTP/1.1"), 400);
    assert_eq!(guest.status("GET http://169.254.169.254 HTTP/1.1"), 400);
    assert_eq!(guest.status("GET http://169.254.169.254/a HTTP/1.1"), 200);
    assert_eq!(guest.status("GET HTTP://x/ HTTP/1.1"), 200);
}

#[test]
fn a_token_is_given_with_its_time_in_the_same_words() {
    let guest = Guest::new(Version::V2, false);
    let answer =
        guest.ask("PUT /latest/api/token HTTP/1.1\r\nX-aws-ec2-metadata-token-ttl-seconds: 21600");
    let (head, token) = answer.split_once("\r\n\r\n").unwrap();
    expect![[r#"
        HTTP/1.1 200 
        Server: Firecracker API
        Connection: keep-alive
        X-aws-ec2-metadata-token-ttl-seconds: 21600
        Content-Type: text/plain
        Content-Length: 48"#]]
    .assert_eq(&head.replace('\r', ""));
    assert_eq!(token.len(), 48);
    for header in ["X-metadata-token", "x-aws-ec2-metadata-token"] {
        assert_eq!(guest.status(&format!("GET /a HTTP/1.1\r\n{header}: {token}")), 200);
    }
}

#[test]
fn a_token_is_refused_for_every_reason_there_is() {
    let guest = Guest::new(Version::V2, false);
    let put = |path: &str, headers: &str| guest.status(&format!("PUT {path} HTTP/1.1{headers}"));
    const TTL: &str = "\r\nX-metadata-token-ttl-seconds: ";
    assert_eq!(put("/latest/api/token", ""), 400);
    for ttl in ["0", "21601", "-1", "", "many", "1.5", "99999999999999999999"] {
        assert_eq!(put("/latest/api/token", &format!("{TTL}{ttl}")), 400, "{ttl}");
    }
    let forwarded = format!("{TTL}60\r\nX-Forwarded-For: 10.0.0.1");
    assert_eq!(put("/latest/api/token", &forwarded), 400);
    assert_eq!(put("/latest/api", &format!("{TTL}60")), 404);
    assert_eq!(put("/latest/api/token", &format!("{TTL}1")), 200);
}

#[test]
fn the_second_version_asks_for_a_token_and_the_first_counts() {
    let mut guest = Guest::new(Version::V2, false);
    let token = guest.token();
    let with = |token: &str| format!("GET /a HTTP/1.1\r\nX-metadata-token: {token}");
    assert_eq!(guest.status("GET /a HTTP/1.1"), 401);
    assert_eq!(guest.status(&with("nonsense")), 401);
    assert_eq!(guest.status(&with(&token)), 200);
    guest.now += Duration::from_secs(60);
    assert_eq!(guest.status(&with(&token)), 401);
    guest.rules.version = Version::V1;
    assert_eq!(guest.status("GET /a HTTP/1.1"), 200);
    assert_eq!(guest.status(&with(&token)), 200);
    let counters = guest.service.counters();
    assert_eq!(counters.rx_no_token.load(Ordering::Relaxed), 2);
    assert_eq!(counters.rx_invalid_token.load(Ordering::Relaxed), 3);
}

#[test]
fn nothing_is_found_before_somebody_has_put_it_there() {
    let mut guest = Guest::new(Version::V1, false);
    guest.service = Service::new("web", 1000, random_enough);
    assert_eq!(guest.status("GET /a HTTP/1.1"), 404);
    assert_eq!(guest.status("GET / HTTP/1.1"), 200);
}
