//! Why rights were refused: the class that decides the status (M-60 ... M-63), the rule, and a sentence without secrets.
//!
//! It knows classes and rules; statuses, challenges and documents are made in `http/problem.rs`, in the style that M-408 asks for.

use super::Dialect;

/// Why a request got no rights.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct AuthError {
    /// What went wrong.
    pub(crate) reason: Reason,
    /// The dialect of the token, where one could be told (M-402, M-408); otherwise the request's parameters decide the style of the answer.
    pub(crate) dialect: Option<Dialect>,
}

impl AuthError {
    pub(crate) fn new(reason: Reason, dialect: Option<Dialect>) -> Self {
        AuthError { reason, dialect }
    }

    pub(crate) fn class(&self) -> Class {
        self.reason.class()
    }

    /// The rule of the specification that refuses.
    pub(crate) fn rule(&self) -> &'static str {
        self.reason.rule()
    }
}

impl From<Reason> for AuthError {
    fn from(reason: Reason) -> Self {
        AuthError { reason, dialect: None }
    }
}

/// What a refusal is to the client, before its style is chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Class {
    /// Nothing was presented, and something is needed: 401 with a bare challenge (M-60).
    Missing,
    /// It was presented in a way that is none: 400 `invalid_request`, in dialect 7 401 (M-63, M-408).
    Malformed,
    /// A token or key that does not hold: 401 `invalid_token`, one code for all causes (M-61).
    Invalid,
    /// A valid token that does not grant this: 403 `insufficient_scope`, in dialect 7 401 (M-62, M-408).
    Insufficient,
    /// The issuer's keys could not be fetched, so nothing can be said of its token now: 503.
    Unavailable,
}

/// What exactly went wrong. The texts go to the client: they say what to change and hold nothing secret.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Reason {
    #[error("this needs a token or key: send `Authorization: Bearer <token>`")]
    NoToken,
    #[error("this hub has no key for publishers: add one with `publish_key` or as a key of an issuer")]
    NoPublishers,
    #[error("send one `Authorization` field, not several")]
    ManyFields,
    #[error("the `Authorization` field must be `Bearer` and one token or key")]
    NotBearer,
    #[error("what follows `Bearer` is too short to be a token")]
    TooShort,
    #[error("send the query name `authorization` once")]
    ManyInQuery,
    #[error("publishing with a cookie needs an `Origin` or `Referer` field, which says what page sends it; others send `Authorization`")]
    NoOrigin,
    #[error("tokens in the query are off here; send an `Authorization` field or a cookie, or turn on the setting `query_token`")]
    QueryOff,
    #[error("the key is not one of this hub's publish keys")]
    UnknownKey,
    #[error("a publish key opens no streams here; subscribe with a token")]
    KeyForPublishers,
    #[error("no key of this hub verifies tokens of subscribers; send none, or configure one for them")]
    NoSubscribers,
    #[error("the token is longer than {limit} bytes")]
    TooLong { limit: usize },
    #[error("the token is not a signed token: three parts in base64url, with dots between them")]
    Shape,
    #[error("the {part} of the token: {problem}")]
    Json { part: &'static str, problem: String },
    #[error("the algorithm of the token is none that this hub was told to accept")]
    Algorithm,
    #[error("the token has critical extensions (`crit`), and none is supported")]
    Critical,
    #[error("the claim `{claim}` is missing")]
    ClaimMissing { claim: &'static str },
    #[error("the claim `{claim}` must be {wanted}")]
    Claim { claim: &'static str, wanted: &'static str },
    #[error("the issuer of the token is none that this hub trusts")]
    Issuer,
    #[error("no key of this hub verifies tokens of this kind for this role")]
    NoKey,
    #[error("the signature does not verify with any key that this hub has for this role and issuer")]
    Signature,
    #[error("tokens without `typ` `at+jwt` are not accepted here: no key is marked for legacy claims")]
    NoLegacy,
    #[error("the token has expired; get a new one")]
    Expired,
    #[error("the token is not valid yet")]
    NotYet,
    #[error("the token is for another audience: `aud` must have this hub's resource identifier")]
    Audience,
    #[error("{what} has {problem}")]
    Grants { rule: &'static str, what: &'static str, problem: String },
    #[error("the token does not grant this")]
    NotGranted,
    #[error("the keys of the token's issuer cannot be fetched now; try again later")]
    NoKeySet,
}

impl Reason {
    pub(crate) fn class(&self) -> Class {
        use Reason as R;
        match self {
            R::NoToken | R::NoPublishers => Class::Missing,
            R::ManyFields | R::NotBearer | R::TooShort | R::ManyInQuery | R::NoOrigin => Class::Malformed,
            R::NotGranted => Class::Insufficient,
            R::NoKeySet => Class::Unavailable,
            _ => Class::Invalid,
        }
    }

    pub(crate) fn rule(&self) -> &'static str {
        use Reason as R;
        match self {
            R::NoToken => "M-60",
            R::NoPublishers => "M-53",
            R::ManyFields => "M-63",
            R::NotBearer => "M-331",
            R::TooShort => "M-315",
            R::ManyInQuery => "M-205",
            R::NoOrigin => "M-59",
            R::QueryOff => "M-406",
            R::UnknownKey | R::KeyForPublishers => "N-33",
            R::NoSubscribers => "M-341",
            R::TooLong { .. } => "M-79",
            R::Shape | R::Json { .. } => "M-55",
            R::Algorithm => "M-69",
            R::Critical | R::NoKey | R::Signature => "M-70",
            R::ClaimMissing { claim: "exp" } | R::Claim { claim: "exp" | "nbf", .. } | R::Expired | R::NotYet => "M-72",
            R::ClaimMissing { claim: "aud" } | R::Claim { claim: "aud", .. } | R::Audience => "M-73",
            R::ClaimMissing { claim: "iss" } | R::Claim { claim: "iss", .. } => "M-74",
            R::ClaimMissing { .. } | R::Claim { .. } => "M-55",
            R::Issuer => "M-74",
            R::NoLegacy => "M-402",
            R::Grants { rule, .. } => rule,
            R::NotGranted => "M-62",
            R::NoKeySet => "M-411",
        }
    }
}
