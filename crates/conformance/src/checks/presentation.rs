//! How a token is presented, and what presenting it badly gets.

use super::{
    Check,
    When::{Each, Eight, Seven},
    must, observed, ours, should,
};
use crate::{
    http::Answer,
    probe::{Outcome, Probe, Verdict, bearer, describe, encoded, expect, form, skipped},
    settings::Role,
};

pub(super) const CHECKS: &[Check] = &[
    must(Eight, &[57, 315], "the scheme Bearer is read in any case", scheme_case),
    must(Eight, &[60], "without a token: 401 and a bare Bearer challenge", bare_challenge),
    should(Eight, &[60], "the challenge names the metadata", challenge_names_metadata),
    must(Eight, &[63], "a malformed presentation is 400 invalid_request", malformed),
    ours(Eight, &[63, 57], "two Authorization headers are 400 invalid_request", two_headers),
    observed(Each, &[331], "another scheme is 400 or 401, also beside a good cookie", other_scheme),
    observed(Each, &[338, 315], "two spaces after Bearer, or too short a token, are refused", two_spaces),
    must(Eight, &[57], "access_token in the URL is no token", access_token_in_url),
    must(Each, &[57, 205], "the header beats the cookie", header_beats_cookie),
    must(Seven, &[205], "the header beats the query, the query beats the cookie", query_order),
    should(Seven, &[206, 205], "a token in the URL is taken, and the answer is private", query_token),
    must(Each, &[61], "what is no token at all is refused", no_token_at_all),
];

/// Subscribes to something with exactly these headers.
fn subscribe_with(p: &Probe<'_>, headers: &[(&str, &str)]) -> Result<Answer, Verdict> {
    let request = headers.iter().fold(p.get(&p.select(&[&p.topic("a")])), |request, (name, value)| request.header(name, value));
    p.send(request)
}

/// The challenge has this error code.
pub(super) fn challenges(answer: &Answer, status: u16, error: &str) -> Outcome {
    let challenge = answer.field("www-authenticate").unwrap_or_default();
    let named = challenge.starts_with("Bearer") && challenge.replace('"', "").contains(&format!("error={error}"));
    expect(answer.status() == status && named, format!("{status} with a Bearer challenge, error=\"{error}\""), describe(answer))
}

fn scheme_case(p: &Probe<'_>) -> Outcome {
    let token = p.subscriber(&[]);
    for scheme in ["Bearer", "bearer", "BEARER", "bEaReR"] {
        let answer = subscribe_with(p, &[("Authorization", &format!("{scheme} {token}"))])?;
        expect(answer.status() == 200, format!("200 with the scheme {scheme}"), describe(&answer))?;
    }
    Ok(())
}

fn unauthenticated(p: &Probe<'_>) -> Result<Vec<Answer>, Verdict> {
    let mut answers = vec![p.send(p.post(form(&[("topic", &p.topic("a")), ("data", "x")])))?];
    if !p.hub.settings.anonymous {
        answers.push(subscribe_with(p, &[])?);
    }
    Ok(answers)
}

fn bare_challenge(p: &Probe<'_>) -> Outcome {
    for answer in unauthenticated(p)? {
        let challenge = answer.field("www-authenticate").unwrap_or_default();
        let bare = challenge.starts_with("Bearer") && !challenge.contains("error=");
        expect(answer.status() == 401 && bare, "401 with WWW-Authenticate: Bearer and no error", describe(&answer))?;
    }
    Ok(())
}

fn challenge_names_metadata(p: &Probe<'_>) -> Outcome {
    for answer in unauthenticated(p)? {
        let challenge = answer.field("www-authenticate").unwrap_or_default();
        let named = challenge.contains("resource_metadata=\"http") && challenge.contains("/.well-known/oauth-protected-resource");
        expect(named, "resource_metadata=\"...\"", describe(&answer))?;
    }
    Ok(())
}

fn malformed(p: &Probe<'_>) -> Outcome {
    for value in ["Bearer", "Bearer ", "Bearer a b c"] {
        let answer = subscribe_with(p, &[("Authorization", value)])?;
        challenges(&answer, 400, "invalid_request")?;
    }
    Ok(())
}

fn two_headers(p: &Probe<'_>) -> Outcome {
    let good = format!("Bearer {}", p.subscriber(&[]));
    for other in [good.as_str(), "Bearer x.y.z", "Basic eDp5"] {
        for pair in [[good.as_str(), other], [other, good.as_str()]] {
            let answer = subscribe_with(p, &[("Authorization", pair[0]), ("Authorization", pair[1])])?;
            challenges(&answer, 400, "invalid_request")?;
        }
    }
    let publisher = format!("Bearer {}", p.publisher());
    let request = p.post(form(&[("topic", &p.topic("a")), ("data", "x")]));
    let answer = p.send(request.header("Authorization", &publisher).header("Authorization", &publisher))?;
    challenges(&answer, 400, "invalid_request")
}

fn other_scheme(p: &Probe<'_>) -> Outcome {
    let cookie = format!("{}={}", p.cookie_name(), p.subscriber(&[]));
    let token = p.subscriber(&[]);
    for value in ["Basic dXNlcjpwYXNzd29yZA==".to_owned(), format!("DPoP {token}"), token] {
        for headers in [&[("Authorization", value.as_str())][..], &[("Authorization", &value), ("Cookie", &cookie)]] {
            let answer = subscribe_with(p, headers)?;
            expect(matches!(answer.status(), 400 | 401), format!("400 or 401 for {headers:?}"), describe(&answer))?;
        }
    }
    Ok(())
}

fn two_spaces(p: &Probe<'_>) -> Outcome {
    for value in [format!("Bearer  {}", p.subscriber(&[])), "Bearer x.y.z".to_owned()] {
        let answer = subscribe_with(p, &[("Authorization", &value)])?;
        expect(matches!(answer.status(), 400 | 401), "400 or 401", describe(&answer))?;
    }
    Ok(())
}

fn access_token_in_url(p: &Probe<'_>) -> Outcome {
    if p.hub.settings.anonymous {
        return skipped("with anonymous subscribers it cannot be told");
    }
    let query = format!("{}&access_token={}", p.select(&[&p.topic("a")]), encoded(&p.subscriber(&["*"])));
    let answer = p.send(p.get(&query))?;
    expect(answer.status() == 401, "401", describe(&answer))
}

fn header_beats_cookie(p: &Probe<'_>) -> Outcome {
    let cookie = format!("{}={}", p.cookie_name(), p.subscriber(&["*"]));
    let bad = p.token(Role::Subscribe, &["*"]).signed(&crate::token::Key::stranger());
    let answer = subscribe_with(p, &[("Authorization", &format!("Bearer {bad}")), ("Cookie", &cookie)])?;
    expect(answer.status() == 401, "401: the bad token of the header counts", describe(&answer))?;
    let topic = p.topic("a");
    let request = bearer(p.get(&p.select(&[&topic])), &p.subscriber(&[])).header("Cookie", &cookie);
    let mut stream = p.open(request)?;
    p.published(&[("topic", &topic), ("data", "1"), ("private", "")])?;
    let marker = p.published(&[("topic", &topic), ("data", "2")])?;
    stream.next_is(&marker, "the cookie's grants do not count beside a header").map(drop)
}

fn query_order(p: &Probe<'_>) -> Outcome {
    if !p.hub.settings.query_token {
        return skipped("tokens in the URL are switched off");
    }
    let (good, none) = (p.subscriber(&["*"]), p.subscriber(&[]));
    let topic = p.topic("a");
    let query = |token: &str| format!("{}&authorization={}", p.select(&[&topic]), encoded(token));
    let cookie = |token: &str| format!("{}={token}", p.cookie_name());
    let mut by_header = p.open(bearer(p.get(&query(&none)), &good))?;
    let mut by_query = p.open(p.get(&query(&none)).header("Cookie", &cookie(&good)))?;
    let private = p.published(&[("topic", &topic), ("data", "1"), ("private", "on")])?;
    let marker = p.published(&[("topic", &topic), ("data", "2")])?;
    by_header.then(&[&private, &marker], "the header's token counts beside one in the URL")?;
    by_query.then(&[&marker], "the URL's token counts beside one in a cookie")
}

fn query_token(p: &Probe<'_>) -> Outcome {
    if !p.hub.settings.query_token {
        return skipped("tokens in the URL are switched off");
    }
    let topic = p.topic("a");
    let query = format!("{}&authorization={}", p.select(&[&topic]), encoded(&p.subscriber(&[&topic])));
    let mut stream = p.open(p.get(&query))?;
    let cache = stream.head.field("cache-control").unwrap_or_default();
    expect(cache.contains("private"), "Cache-Control: private", &stream.head.text)?;
    let private = p.published(&[("topic", &topic), ("data", "1"), ("private", "on")])?;
    stream.next_is(&private, "the token in the URL grants").map(drop)
}

fn no_token_at_all(p: &Probe<'_>) -> Outcome {
    let long = "x".repeat(60);
    let good = p.subscriber(&[]);
    let parts: Vec<&str> = good.split('.').collect();
    for token in [
        long.clone(),
        format!("{long}.{long}.{long}"),
        format!("{}.{}", parts[0], parts[1]),
        format!("{}.{}.", parts[0], parts[1]),
        format!(".{}.{}", parts[1], parts[2]),
        format!("{}..{}", parts[0], parts[2]),
        format!("{good}.{}", parts[2]),
        format!("{good}="),
        format!("{}.{}.{}A", parts[0], parts[1], parts[2]),
        format!("{}.{}.{}", parts[0], crate::token::encode(b"[]"), parts[2]),
        format!("{}.{}.{}", crate::token::encode(b"{"), parts[1], parts[2]),
    ] {
        let answer = subscribe_with(p, &[("Authorization", &format!("Bearer {token}"))])?;
        let wanted = if p.is_eight() { matches!(answer.status(), 400 | 401) } else { answer.status() == 401 };
        expect(wanted, format!("a refusal of {token}"), describe(&answer))?;
    }
    Ok(())
}
