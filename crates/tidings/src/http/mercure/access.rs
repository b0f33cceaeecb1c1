//! Who asks, with which rights, and in which style a refusal is said (M-408).
//!
//! It knows requests and where credentials stand in them; what a token means is decided in `auth`.

use super::Problem;
use crate::http::Shared;
use http::request::Parts;
use tidings_core::Grant;

/// What somebody wants to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    Publish,
    Subscribe,
}

/// How a refusal is said. Clients of dialect 7 test for 401, whatever is wrong with their rights; dialect 8 follows RFC 6750 (M-408).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Style {
    Seven,
    Eight,
}

/// The rights of a request.
pub(super) struct Access {
    pub(super) grant: Grant,
    pub(super) style: Style,
}

/// The rights of a request in a role, or the refusal in its style. `asked` is the style of a subscription's parameters, for requests
/// without a token.
pub(super) fn of(shared: &Shared, parts: &Parts, role: Role, asked: Option<Style>) -> Result<Access, Problem> {
    let dialects = shared.hub.config().mercure_dialects;
    let style = asked.unwrap_or(if dialects.eight() { Style::Eight } else { Style::Seven });
    let grant = shared.grant(parts).map_err(|problem| problem.in_style(style))?;
    if role == Role::Publish && grant.publish.is_empty() {
        return Err(Problem::NoCredentials.in_style(style));
    }
    Ok(Access { grant, style })
}
