//! Keys: one role, one family, one issuer each; and no key is mistaken for another kind.

use super::{
    Check,
    When::{Each, Eight},
    must, token_checks,
};
use crate::{
    probe::{Outcome, Probe, Verdict, bearer, describe, expect, form, skipped},
    settings::{Identity, Role},
    token::{Key, Token},
};
use serde_json::json;

pub(super) const CHECKS: &[Check] = &[
    must(Each, &[70, 61], "a publisher's key does not open a stream, a subscriber's does not publish", roles),
    must(Eight, &[71, 61], "a key verifies for its own issuer only", issuers),
    must(Eight, &[69, 325], "every further key is accepted for its algorithm, issuer and role", further_keys),
    must(Eight, &[69, 70, 61], "a public key in PEM is no HMAC secret", confusion),
    must(Eight, &[69, 61], "a token of another family is refused, though its key is known", families),
];

fn main_keys_differ(p: &Probe<'_>) -> Outcome {
    let probe = b"the same bytes";
    let (publisher, subscriber) = (p.key(Role::Publish), p.key(Role::Subscribe));
    // Signatures of ECDSA are random; their keys show themselves.
    let same = publisher.algorithm() == subscriber.algorithm()
        && publisher.public_pem() == subscriber.public_pem()
        && (publisher.public_pem().is_some() || publisher.sign(probe) == subscriber.sign(probe));
    if same { skipped("publishers and subscribers have one key") } else { Ok(()) }
}

fn other(role: Role) -> Role {
    match role {
        Role::Publish => Role::Subscribe,
        Role::Subscribe => Role::Publish,
    }
}

fn roles(p: &Probe<'_>) -> Outcome {
    main_keys_differ(p)?;
    token_checks::refused(p, |role| p.token(role, &["*"]).signed(p.key(other(role))), "the key of the other role")
}

fn others<'p>(p: &'p Probe<'_>) -> Result<&'p [Identity], Verdict> {
    let others = &p.hub.settings.others;
    if others.is_empty() { skipped("the suite was told of no further keys") } else { Ok(others) }
}

fn token(p: &Probe<'_>, role: Role, issuer: &str) -> Token {
    p.token(role, &["*"]).claim("iss", json!(issuer))
}

fn status(p: &Probe<'_>, role: Role, token: &str) -> Result<crate::http::Answer, Verdict> {
    let topic = p.topic("a");
    match role {
        Role::Publish => p.send(bearer(p.post(form(&[("topic", &topic), ("data", "x")])), token)),
        Role::Subscribe => p.send(bearer(p.get(&p.select(&[&topic])), token)),
    }
}

fn further_keys(p: &Probe<'_>) -> Outcome {
    for Identity { role, issuer, key } in others(p)? {
        let answer = status(p, *role, &token(p, *role, issuer).signed(key))?;
        expect(answer.status() == 200, format!("200 with the {} key of {issuer}", key.algorithm()), describe(&answer))?;
        let main = token(p, *role, issuer).header("kid", json!("x")).signed(key);
        let answer = status(p, *role, &main)?;
        expect(answer.status() == 200, format!("200 with an unknown kid and the {} key of {issuer}", key.algorithm()), describe(&answer))?;
    }
    Ok(())
}

fn issuers(p: &Probe<'_>) -> Outcome {
    let own = &p.hub.settings.issuer;
    let foreign: Vec<&Identity> = others(p)?.iter().filter(|identity| identity.issuer != *own).collect();
    if foreign.is_empty() {
        return skipped("the suite was told of no second issuer");
    }
    for Identity { role, issuer, key } in foreign {
        let stolen = status(p, *role, &token(p, *role, own).signed(key))?;
        expect(stolen.status() == 401, format!("401 for the name of {own} with the key of {issuer}"), describe(&stolen))?;
        let stolen = status(p, *role, &token(p, *role, issuer).signed(p.key(*role)))?;
        expect(stolen.status() == 401, format!("401 for the name of {issuer} with the key of {own}"), describe(&stolen))?;
        let role = other(*role);
        let shared = p
            .hub
            .settings
            .others
            .iter()
            .any(|identity| identity.issuer == *issuer && identity.role == role && identity.key.public_pem() == key.public_pem());
        if !shared {
            let stolen = status(p, role, &token(p, role, issuer).signed(key))?;
            expect(stolen.status() == 401, format!("401 for the other role with the key of {issuer}"), describe(&stolen))?;
        }
    }
    Ok(())
}

fn confusion(p: &Probe<'_>) -> Outcome {
    let settings = &p.hub.settings;
    let main = [(Role::Publish, &settings.issuer, &settings.publisher), (Role::Subscribe, &settings.issuer, &settings.subscriber)];
    let all = main.into_iter().chain(settings.others.iter().map(|identity| (identity.role, &identity.issuer, &identity.key)));
    let public: Vec<_> = all.filter_map(|(role, issuer, key)| Some((role, issuer, key.algorithm(), key.public_pem()?))).collect();
    if public.is_empty() {
        return skipped("the suite was told of no asymmetric key");
    }
    for (role, issuer, algorithm, pem) in public {
        let lines = pem.lines().filter(|line| !line.starts_with("-----")).collect::<String>();
        for secret in [pem.as_str(), pem.trim_end(), &lines] {
            for name in ["HS256", algorithm] {
                let forged = token(p, role, issuer).header("alg", json!(name)).signed(&Key::secret(secret));
                let answer = status(p, role, &forged)?;
                expect(answer.status() == 401, format!("401 for the public {algorithm} key as a secret, named {name}"), describe(&answer))?;
            }
        }
    }
    Ok(())
}

fn families(p: &Probe<'_>) -> Outcome {
    for Identity { role, issuer, key } in others(p)? {
        for name in ["HS256", "RS256", "ES256", "EdDSA", "PS256", "RS1"] {
            if name != key.algorithm() {
                let answer = status(p, *role, &token(p, *role, issuer).header("alg", json!(name)).signed(key))?;
                expect(answer.status() == 401, format!("401 for {name} over a signature of {}", key.algorithm()), describe(&answer))?;
            }
        }
    }
    Ok(())
}
