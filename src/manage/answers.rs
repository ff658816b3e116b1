//! How answers and refusals are written: as JSON, refusals with a `message`, and under `/@connections` with the type by which clients
//! of AWS know them.

use std::borrow::Cow;

use http::{HeaderName, StatusCode, header};

use super::{json::Object, target::is_of_aws};
use crate::{
    error::{Error, OverLimit},
    http::{Refusal, Request, Response},
};

const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");

pub(super) fn json(status: StatusCode, object: Object) -> Response {
    Response::json(object.into_text()).with_status(status)
}

/// Done, and there is nothing to say of it.
pub(super) fn done() -> Response {
    Response::without_body(StatusCode::NO_CONTENT)
}

/// A refusal; `None` is the request that nobody could read.
pub(super) fn write(mut refusal: Refusal, request: Option<&Request>) -> Response {
    let status = refusal.status();
    let mut response = json(status, Object::new().with("message", refusal.reason())).late_as(&refusal);
    response.headers_mut().extend(std::mem::take(refusal.headers_mut()));
    match error_type(status).filter(|_| request.is_some_and(|request| is_of_aws(request.raw_path()))) {
        Some(kind) => response.with_header(ERROR_TYPE, kind),
        None => response,
    }
}

/// What AWS's API Gateway calls it. Those with an own exception in its clients are 400 of POST, 403, 410, 413 and 429.
fn error_type(status: StatusCode) -> Option<&'static str> {
    Some(match status {
        StatusCode::BAD_REQUEST => "BadRequestException",
        StatusCode::FORBIDDEN => "ForbiddenException",
        StatusCode::NOT_FOUND => "NotFoundException",
        StatusCode::METHOD_NOT_ALLOWED => "MethodNotAllowedException",
        StatusCode::REQUEST_TIMEOUT => "RequestTimeoutException",
        StatusCode::CONFLICT => "ConflictException",
        StatusCode::GONE => "GoneException",
        StatusCode::PAYLOAD_TOO_LARGE => "PayloadTooLargeException",
        StatusCode::TOO_MANY_REQUESTS => "LimitExceededException",
        StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailableException",
        status if status.is_server_error() => "InternalServerErrorException",
        _ => return None,
    })
}

pub(super) fn bad(reason: impl Into<Cow<'static, str>>) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, reason)
}

pub(super) fn not_found() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "nothing at this path")
}

pub(super) fn not_allowed(methods: &'static str) -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, format!("here is only {methods}"))
        .with_header(header::ALLOW, methods)
}

pub(super) fn gone() -> Refusal {
    Refusal::new(StatusCode::GONE, "no connection has this ID, or none has it any more")
}

pub(super) fn full(reason: &'static str) -> Refusal {
    Refusal::new(StatusCode::TOO_MANY_REQUESTS, reason).with_header(header::RETRY_AFTER, 1)
}

pub(super) fn later(reason: impl Into<Cow<'static, str>>) -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, reason).with_header(header::RETRY_AFTER, 5)
}

/// What the hub could not do. Its user is the operator: the text may say all.
pub(super) fn refused(error: Error) -> Refusal {
    match error {
        Error::UnknownId | Error::Refused | Error::Closed(_) => gone(),
        Error::QueueFull => full("the client's queue is full"),
        Error::OverLimit(OverLimit::Topics) => full("the connection has too many topics (max_topics)"),
        Error::OverLimit(OverLimit::AllTopics) => later(error.to_string()),
        Error::NotShared => {
            Refusal::new(StatusCode::CONFLICT, "the connection is not shared: its own handler reads it")
        }
        Error::OverLimit(_) | Error::NoHistory => bad(error.to_string()),
        Error::Unreachable => later(
            "another node of the cluster, or its Redis, cannot be reached, or has not answered in time: what was to be changed may \
             have been, or not",
        ),
        Error::Timeout => later("the connection is still being opened"),
        other => Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, other.to_string()),
    }
}
