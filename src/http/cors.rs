//! CORS: pages of an origin that `allowed_origins` lists may read what the gateway answers. (The Fetch
//! standard, <https://fetch.spec.whatwg.org/#http-cors-protocol>.)
//!
//! Off unless an origin is listed: pages of the gateway's own host need none, and all others are refused
//! before. No cookie is asked for: a page shows its token itself.

use actix_web::HttpResponse;
use actix_web::http::Method;
use actix_web::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderValue, VARY,
};

use crate::config::WebOrigin;

/// Whether a browser asks what a page may ask, before it does.
pub(super) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// What a page of a listed origin may ask: everything that its token permits.
pub(super) fn preflight() -> HttpResponse {
    HttpResponse::NoContent()
        .insert_header((ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, DELETE"))
        .insert_header((ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type"))
        .insert_header((ACCESS_CONTROL_MAX_AGE, "600"))
        .finish()
}

/// Lets the page read the answer.
pub(super) fn allow(page: &WebOrigin, headers: &mut HeaderMap) {
    if let Ok(page) = HeaderValue::try_from(page.to_string()) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, page);
        headers.append(VARY, HeaderValue::from_static("origin"));
    }
}
