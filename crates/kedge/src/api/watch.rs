//! A request from when it comes in until it is answered: what is counted and measured of
//! it.

use std::time::Instant;

use kedge_api::call::{Fault, Parsed, Route};
use kedge_api::http::{Request, Response};

use crate::metering::{Act, Metering};

/// What requests are called that are for nothing that there is.
const OTHER: &str = "other";

/// A request that is not answered yet.
pub(super) struct Watch {
    began: Instant,
    kind: String,
    act: Option<Act>,
    metering: Metering,
}

impl Watch {
    /// What `request` asks for, and the watch over it.
    pub(super) fn read(request: &Request, metering: &Metering) -> (Result<Parsed, Fault>, Self) {
        let began = Instant::now();
        let (kind, parsed) = match Route::find(request.method, &request.path) {
            Ok((route, id)) => (route.to_string(), route.read(id.as_deref(), &request.body)),
            Err(fault) => (OTHER.to_owned(), Err(fault)),
        };
        let act = parsed.as_ref().ok().and_then(|parsed| Act::of(&parsed.call));
        if parsed.as_ref().is_ok_and(|parsed| parsed.deprecated) {
            metering.deprecated();
        }
        (parsed, Self { began, kind, act, metering: metering.clone() })
    }

    /// It is answered.
    pub(super) fn end(self, response: &Response) {
        let Self { began, kind, act, metering } = self;
        let (took, refused) = (began.elapsed(), response.status() >= 400);
        metering.asked(&kind, took, refused);
        if let Some(act) = act.filter(|_| !refused) {
            metering.answered(act, took);
        }
    }
}
