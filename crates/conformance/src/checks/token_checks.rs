//! What makes a token of dialect 8 good: type, algorithm, issuer, audience, time. Each fault alone, in an otherwise perfect token.

use super::{
    Check,
    When::{Each, Eight, Seven},
    must, observed, presentation,
};
use crate::{
    probe::{Outcome, Probe, Verdict, bearer, describe, expect, form, now},
    settings::Role,
    token::{Key, Token},
};
use serde_json::{Value, json};

pub(super) const CHECKS: &[Check] = &[
    must(Eight, &[55, 57], "a complete token is accepted for what it grants", complete),
    must(Eight, &[68], "typ is at+jwt in any case, with or without application/", good_types),
    must(Eight, &[68, 61], "any other typ is 401 invalid_token", bad_types),
    must(Eight, &[69, 61], "no signature, or an algorithm of the token's own choice, is 401", algorithms),
    must(Eight, &[70, 61, 335], "jwk, jku, x5u, x5c and crit never help a token", embedded_keys),
    must(Eight, &[70], "an unknown kid only orders the keys", unknown_kid),
    must(Eight, &[72, 61, 335], "exp is demanded, a number, and past: to the second", bad_exp),
    must(Eight, &[72, 61], "nbf is enforced", not_before),
    must(Eight, &[73, 61], "the audience has to contain the hub", bad_audience),
    must(Eight, &[73], "one of several audiences is enough", several_audiences),
    must(Eight, &[73], "what Host and X-Forwarded-Host say is no audience", host_is_no_audience),
    must(Eight, &[74, 61], "the issuer has to be the trusted one, exactly", bad_issuer),
    must(Each, &[329, 61], "a bad token is refused and never falls back to anonymous", never_anonymous),
    must(Each, &[61, 53], "a bad token publishes nothing", bad_publisher),
    must(Seven, &[209, 335], "exp and nbf are enforced when they are there", legacy_times),
    must(Seven, &[69, 205], "no signature, or an algorithm of the token's own choice, is 401 in dialect 7", algorithms),
    must(Each, &[61], "a token of a hundred kilobytes is refused, and nothing breaks", huge),
    observed(Eight, &[72], "iat, jti, sub and client_id of odd values do not matter", odd_claims),
];

/// The token is refused for publishing and for subscribing as each dialect does it.
pub(super) fn refused(p: &Probe<'_>, make: impl Fn(Role) -> String, why: &str) -> Outcome {
    let topic = p.topic("a");
    let answers = [
        p.send(bearer(p.get(&p.select(&[&topic])), &make(Role::Subscribe)))?,
        p.send(bearer(p.post(form(&[("topic", &topic), ("data", "x")])), &make(Role::Publish)))?,
    ];
    for answer in answers {
        if p.is_eight() {
            presentation::challenges(&answer, 401, "invalid_token").map_err(|verdict| because(verdict, why))?;
        } else {
            expect(answer.status() == 401, format!("401 for {why}"), describe(&answer))?;
        }
    }
    Ok(())
}

fn because(verdict: Verdict, why: &str) -> Verdict {
    match verdict {
        Verdict::Failed { expected, seen } => Verdict::Failed { expected: format!("{expected}, for {why}"), seen },
        skipped @ Verdict::Skipped(_) => skipped,
    }
}

/// The spoilt form of a perfect token is refused.
fn spoilt(p: &Probe<'_>, why: &str, spoil: impl Fn(Token) -> Token) -> Outcome {
    refused(p, |role| spoil(p.token(role, &["*"])).signed(p.key(role)), why)
}

/// The spoilt form of a perfect token is refused, or taken for somebody without any right.
fn grants_nothing(p: &Probe<'_>, why: &str, spoil: &dyn Fn(Token) -> Token) -> Outcome {
    let topic = p.topic("a");
    let make = |role| spoil(p.token(role, &["*"])).signed(p.key(role));
    let answer = p.send(bearer(p.post(form(&[("topic", &topic), ("data", "x")])), &make(Role::Publish)))?;
    expect(matches!(answer.status(), 401 | 403), format!("401 or 403 for {why}"), describe(&answer))?;
    let subscribe = || bearer(p.get(&p.select(&[&topic])), &make(Role::Subscribe));
    let answer = p.send(subscribe())?;
    if answer.status() == 401 {
        return Ok(());
    }
    let mut stream = p.open(subscribe())?;
    p.published(&[("topic", &topic), ("data", "1"), ("private", "")])?;
    let marker = p.published(&[("topic", &topic), ("data", "2")])?;
    stream.next_is(&marker, &format!("nothing private for {why}")).map(drop)
}

/// The changed form of a perfect token does what it grants.
pub(super) fn accepted(p: &Probe<'_>, why: &str, change: impl Fn(Token) -> Token) -> Outcome {
    let topic = p.topic("a");
    let make = |role| change(p.token(role, &["*"])).signed(p.key(role));
    let mut stream = p.open(bearer(p.get(&p.select(&[&topic])), &make(Role::Subscribe)))?;
    let answer = p.send(bearer(p.post(form(&[("topic", &topic), ("data", "x"), ("private", "")])), &make(Role::Publish)))?;
    expect(answer.status() == 200, format!("200 for {why}"), describe(&answer))?;
    stream.next_is(answer.text().trim(), why).map(drop)
}

fn complete(p: &Probe<'_>) -> Outcome {
    accepted(p, "a complete token", |token| token)
}

fn good_types(p: &Probe<'_>) -> Outcome {
    ["at+jwt", "AT+JWT", "At+Jwt", "application/at+jwt", "APPLICATION/AT+JWT"]
        .iter()
        .try_for_each(|kind| accepted(p, kind, |token| token.header("typ", json!(kind))))
}

fn bad_types(p: &Probe<'_>) -> Outcome {
    let check = |why: &str, spoil: &dyn Fn(Token) -> Token| {
        // To a hub that speaks dialect 7 too, another typ is a token of that dialect: a valid one without any grant.
        if p.hub.settings.dialects.len() > 1 { grants_nothing(p, why, spoil) } else { spoilt(p, why, spoil) }
    };
    check("no typ", &|token| token.without("typ"))?;
    for kind in [
        json!("JWT"),
        json!("jwt"),
        json!("at+jwtx"),
        json!(" at+jwt"),
        json!("text/at+jwt"),
        json!("application/application/at+jwt"),
        json!(""),
        json!(1),
        json!(null),
        json!(["at+jwt"]),
    ] {
        check(&format!("typ {kind}"), &|token| token.header("typ", kind.clone()))?;
    }
    Ok(())
}

fn algorithms(p: &Probe<'_>) -> Outcome {
    for none in ["none", "None", "NONE", ""] {
        refused(p, |role| p.token(role, &["*"]).header("alg", json!(none)).unsigned(), &format!("alg {none:?} without a signature"))?;
        spoilt(p, &format!("alg {none:?} with a signature"), |token| token.header("alg", json!(none)))?;
    }
    refused(p, |role| p.token(role, &["*"]).header("alg", json!(p.key(role).algorithm())).unsigned(), "an empty signature")?;
    refused(p, |role| p.token(role, &["*"]).signed(&Key::stranger()), "an algorithm that the key is not for")?;
    refused(p, |role| p.token(role, &["*"]).signed(&Key::secret("another secret of quite enough bytes")), "another secret")?;
    refused(p, |role| p.token(role, &["*"]).signed(&Key::secret("")), "an empty secret")?;
    for alg in [json!("HS1"), json!("RS256"), json!("ES256K"), json!(1), json!(null), json!(["HS256"])] {
        if alg != json!(p.key(Role::Publish).algorithm()) && alg != json!(p.key(Role::Subscribe).algorithm()) {
            spoilt(p, &format!("alg {alg} in the header of a token signed otherwise"), |token| token.header("alg", alg.clone()))?;
        }
    }
    Ok(())
}

fn embedded_keys(p: &Probe<'_>) -> Outcome {
    let secret = Key::secret("a secret that travels in the token itself");
    let jwk = json!({"kty": "oct", "alg": "HS256", "k": crate::token::encode(b"a secret that travels in the token itself")});
    for (name, value) in [
        ("jwk", jwk),
        ("jku", json!("http://127.0.0.1:9/keys")),
        ("x5u", json!("http://127.0.0.1:9/certificate")),
        ("x5c", json!(["MIIB"])),
    ] {
        refused(p, |role| p.token(role, &["*"]).header(name, value.clone()).signed(&secret), &format!("a key told by {name}"))?;
    }
    for (crit, extra) in
        [(json!(["b64"]), Some(("b64", json!(false)))), (json!(["exp"]), None), (json!(["x"]), Some(("x", json!(1)))), (json!([]), None)]
    {
        spoilt(p, &format!("crit {crit}"), |token| {
            let token = token.header("crit", crit.clone());
            extra.clone().map_or(token.clone(), |(name, value)| token.header(name, value))
        })?;
    }
    Ok(())
}

fn unknown_kid(p: &Probe<'_>) -> Outcome {
    accepted(p, "an unknown kid", |token| token.header("kid", json!("nobody-knows-it")))
}

fn bad_exp(p: &Probe<'_>) -> Outcome {
    spoilt(p, "no exp", |token| token.without("exp"))?;
    let past = now() - 1;
    let later = now() + 3600;
    for exp in [json!(past), json!(0), json!(-1), json!(later.to_string()), json!(null), json!(true), json!([later]), json!({})] {
        spoilt(p, &format!("exp {exp}"), |token| token.claim("exp", exp.clone()))?;
    }
    Ok(())
}

fn not_before(p: &Probe<'_>) -> Outcome {
    accepted(p, "nbf in the past", |token| token.claim("nbf", json!(now() - 1)))?;
    for nbf in [json!(now() + 30), json!(now() + 3000), json!("soon"), json!([1])] {
        spoilt(p, &format!("nbf {nbf}"), |token| token.claim("nbf", nbf.clone()))?;
    }
    Ok(())
}

fn bad_audience(p: &Probe<'_>) -> Outcome {
    let own = &p.hub.audience;
    spoilt(p, "no aud", |token| token.without("aud"))?;
    for aud in [
        json!("https://other.example/.well-known/mercure"),
        json!(""),
        json!([]),
        json!(["https://other.example"]),
        json!(format!("{own}/")),
        json!(format!("{own}x")),
        json!(&own[..own.len() - 1]),
        json!(own.to_uppercase()),
        json!({"a": own}),
        json!(null),
        json!([[own]]),
    ] {
        spoilt(p, &format!("aud {aud}"), |token| token.claim("aud", aud.clone()))?;
    }
    Ok(())
}

fn several_audiences(p: &Probe<'_>) -> Outcome {
    let own = p.hub.audience.clone();
    accepted(p, "aud as an array of one", |token| token.claim("aud", json!([own])))?;
    accepted(p, "aud among others", |token| token.claim("aud", json!(["https://other.example", own])))
}

fn host_is_no_audience(p: &Probe<'_>) -> Outcome {
    let topic = p.topic("a");
    let path = &p.hub.place.path;
    for (header, host) in [("Host", "evil.example"), ("X-Forwarded-Host", "evil.example"), ("Forwarded", "host=evil.example;proto=https")] {
        for scheme in ["http", "https"] {
            let token = p.token(Role::Subscribe, &["*"]).claim("aud", json!(format!("{scheme}://evil.example{path}")));
            let request = bearer(p.get(&p.select(&[&topic])), &token.signed(p.key(Role::Subscribe)));
            let answer = p.send(request.header(header, host))?;
            expect(matches!(answer.status(), 401 | 421), format!("401 (or 421) for the audience that {header} says"), describe(&answer))?;
        }
    }
    Ok(())
}

fn bad_issuer(p: &Probe<'_>) -> Outcome {
    let own = &p.hub.settings.issuer;
    spoilt(p, "no iss", |token| token.without("iss"))?;
    let values: Vec<Value> = vec![
        json!("https://other.example"),
        json!(""),
        json!(format!("{own}/")),
        json!(format!("{own}x")),
        json!(&own[..own.len() - 1]),
        json!(own.to_uppercase()),
        json!([own]),
        json!(null),
        json!(1),
    ];
    for iss in values {
        spoilt(p, &format!("iss {iss}"), |token| token.claim("iss", iss.clone()))?;
    }
    Ok(())
}

fn never_anonymous(p: &Probe<'_>) -> Outcome {
    refused(
        p,
        |role| p.token(role, &["*"]).signed(&Key::secret("another secret of quite enough bytes")),
        "a bad signature, anonymous or not",
    )
}

fn bad_publisher(p: &Probe<'_>) -> Outcome {
    let topic = p.topic("a");
    let mut stream = p.subscribe(&[&topic], &[&topic])?;
    let bad = p.token(Role::Publish, &["*"]).signed(&Key::stranger());
    let answer = p.send(bearer(p.post(form(&[("topic", &topic), ("data", "1")])), &bad))?;
    expect(answer.status() == 401, "401", describe(&answer))?;
    let marker = p.published(&[("topic", &topic), ("data", "2")])?;
    stream.next_is(&marker, "nothing of a refused publication is dispatched").map(drop)
}

fn legacy_times(p: &Probe<'_>) -> Outcome {
    accepted(p, "exp in the future", |token| token.claim("exp", json!(now() + 60)).claim("nbf", json!(now() - 1)))?;
    for exp in [json!(now() - 1), json!(0)] {
        spoilt(p, &format!("exp {exp}"), |token| token.claim("exp", exp.clone()))?;
    }
    spoilt(p, "nbf in the future", |token| token.claim("nbf", json!(now() + 30)))
}

fn huge(p: &Probe<'_>) -> Outcome {
    let topic = p.topic("a");
    let token = p.token(Role::Subscribe, &["*"]).claim("padding", json!("x".repeat(100_000))).signed(p.key(Role::Subscribe));
    let answer = p.send(bearer(p.get(&p.select(&[&topic])), &token))?;
    expect(matches!(answer.status(), 400 | 401 | 413 | 431), "400, 401, 413 or 431", describe(&answer))?;
    p.published(&[("topic", &topic), ("data", "x")]).map(drop)
}

fn odd_claims(p: &Probe<'_>) -> Outcome {
    accepted(p, "odd claims", |token| {
        token.claim("iat", json!(now() + 3000)).claim("jti", json!("")).claim("sub", json!("é")).claim("scope", json!("x y"))
    })
}
