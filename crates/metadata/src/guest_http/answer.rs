//! What the service says to a request (FIRECRACKER_API.md, 15).

use std::time::Instant;

use super::Response;
use super::request::{Method, Request};
use crate::config::{Config, Version};
use crate::counters::count;
use crate::service::Service;
use crate::token::TTLS;
use crate::view::{Form, Nothing};

/// Where tokens are made.
const TOKENS: &str = "/latest/api/token";

/// What guests are held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    version: Version,
    imds_compat: bool,
}

impl From<&Config> for Rules {
    fn from(config: &Config) -> Self {
        Self { version: config.version, imds_compat: config.imds_compat }
    }
}

/// The answer to `request` at `now`.
pub(crate) fn answer(
    service: &Service,
    rules: Rules,
    request: &Request<'_>,
    now: Instant,
) -> Response {
    let Some(path) = path(request.target) else {
        return Response::text(400, "the path of the request does not begin with `/`");
    };
    match request.method {
        Method::Get => get(service, rules, (request, path), now),
        Method::Put => put(service, (request, path), now),
        Method::Other => {
            let text = "the metadata service answers GET, and PUT for a token";
            Response::text(405, text).with("Allow", "GET, PUT")
        }
    }
}

/// The path of a target, which may have a scheme and a host before it (RFC 9112, 3.2.2).
fn path(target: &str) -> Option<&str> {
    const SCHEME: &str = "http://";
    let path = match target.get(..SCHEME.len()) {
        Some(scheme) if scheme.eq_ignore_ascii_case(SCHEME) => {
            let rest = &target[SCHEME.len()..];
            &rest[rest.find('/')?..]
        }
        _ => target,
    };
    path.starts_with('/').then_some(path)
}

fn get(
    service: &Service,
    rules: Rules,
    (request, path): (&Request<'_>, &str),
    now: Instant,
) -> Response {
    let counters = service.counters();
    let refusal = match request.token {
        None => {
            count(&counters.rx_no_token);
            Some(
                "there is no session token: PUT /latest/api/token, and send what comes back as \
                  `X-metadata-token`",
            )
        }
        Some(token) if !service.is_valid(token, now) => {
            count(&counters.rx_invalid_token);
            Some("the session token is not valid, or not any more: PUT /latest/api/token")
        }
        Some(_) => None,
    };
    if let (Version::V2, Some(text)) = (rules.version, refusal) {
        return Response::text(401, text);
    }
    let form = if rules.imds_compat { Form::Text } else { request.form };
    match (service.look(path, form), form) {
        (Ok(found), Form::Json) => Response::json(found),
        (Ok(found), Form::Text) => Response::text(200, found),
        (Err(Nothing::Missing), _) => missing(path),
        (Err(Nothing::Unsupported), _) => {
            Response::text(501, "Cannot retrieve value. The value has an unsupported type.")
        }
    }
}

fn put(service: &Service, (request, path): (&Request<'_>, &str), now: Instant) -> Response {
    if request.forwarded {
        return Response::text(400, "a token is not for who is behind an `X-Forwarded-For`");
    }
    if path != TOKENS {
        return missing(path);
    }
    let Some((dialect, ttl)) = request.ttl else {
        let text = "say for how many seconds the token is to be valid: \
                    `X-metadata-token-ttl-seconds`";
        return Response::text(400, text);
    };
    let Some(seconds) = ttl.parse().ok().filter(|seconds| TTLS.contains(seconds)) else {
        let (least, most) = (TTLS.start(), TTLS.end());
        let text = format!("a token can be valid for {least} to {most} seconds");
        return Response::text(400, text);
    };
    match service.issue(seconds, now) {
        Ok(token) => Response::text(200, token).with(dialect.ttl_header(), seconds.to_string()),
        Err(_) => Response::text(500, "the host has no random numbers for a token"),
    }
}

fn missing(path: &str) -> Response {
    Response::text(404, format!("Resource not found: {path}."))
}

#[cfg(test)]
mod tests;
