//! The page to subscribe and publish by hand: one file, which loads nothing from elsewhere. It knows what the page is, not who asks.

use crate::http::{look, response::ResponseBody};
use http::Response;

/// The page. It holds no secrets: whoever uses it brings a token.
pub(super) fn page() -> Response<ResponseBody> {
    look::html(include_str!("debug.html"), &[])
}
