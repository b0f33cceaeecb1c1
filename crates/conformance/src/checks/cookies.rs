//! The cookie: its names, and publishing by it only from pages that may.

use super::{
    Check,
    When::{Both, Each, Eight, Seven},
    must, observed, ours, should,
};
use crate::{
    http::Answer,
    probe::{Outcome, Probe, Verdict, describe, expect, form, skipped},
};

pub(super) const CHECKS: &[Check] = &[
    must(Each, &[57, 205], "a token in the cookie is taken, private updates included", subscribe_by_cookie),
    should(Eight, &[58], "the cookie has the recommended name", recommended_name),
    must(Each, &[57, 205], "the cookie is found among others", among_others),
    must(Each, &[61, 329], "a bad token in the cookie is refused", bad_cookie),
    must(Eight, &[59], "publishing by cookie without Origin and Referer, or from another site, is refused", publish_guarded),
    must(
        Seven,
        &[214, 59],
        "publishing by cookie without Origin and Referer, or from another site, is refused in dialect 7",
        publish_guarded,
    ),
    observed(Each, &[316], "pages of an allowed origin publish by cookie", publish_allowed),
    ours(Each, &[408, 59], "a refused Origin is 403 in both dialects", refused_origin),
    ours(Both, &[406], "a configured cookie name is the only one; without it the newer name comes first", names),
];

fn subscribe_by_cookie(p: &Probe<'_>) -> Outcome {
    let topic = p.topic("a");
    let cookie = format!("{}={}", p.cookie_name(), p.subscriber(&[&topic]));
    let mut stream = p.open(p.get(&p.select(&[&topic])).header("Cookie", &cookie))?;
    let private = p.published(&[("topic", &topic), ("data", "1"), ("private", "on")])?;
    stream.next_is(&private, "the cookie's grant counts").map(drop)
}

fn recommended_name(p: &Probe<'_>) -> Outcome {
    if p.hub.settings.cookie_name.is_some() {
        return skipped("the cookie's name is configured");
    }
    let cookie = format!("__Secure-mercure_access_token={}", p.subscriber(&[]));
    let answer = p.send(p.get(&p.select(&[&p.topic("a")])).header("Cookie", &cookie))?;
    expect(answer.status() == 200, "200", describe(&answer))
}

fn among_others(p: &Probe<'_>) -> Outcome {
    let topic = p.topic("a");
    let name = p.cookie_name();
    let cookies = format!("x{name}=y; a=b=c; {name}={}; quoted=\"z\"", p.subscriber(&[&topic]));
    let mut stream = p.open(p.get(&p.select(&[&topic])).header("Cookie", &cookies))?;
    let private = p.published(&[("topic", &topic), ("data", "1"), ("private", "on")])?;
    stream.next_is(&private, "the cookie among others").map(drop)
}

fn bad_cookie(p: &Probe<'_>) -> Outcome {
    let bad = p.token(crate::settings::Role::Subscribe, &["*"]).signed(&crate::token::Key::stranger());
    let answer = p.send(p.get(&p.select(&[&p.topic("a")])).header("Cookie", &format!("{}={bad}", p.cookie_name())))?;
    expect(answer.status() == 401, "401", describe(&answer))
}

fn publish(p: &Probe<'_>, headers: &[(&str, &str)]) -> Result<Answer, Verdict> {
    let cookie = format!("{}={}", p.cookie_name(), p.publisher());
    let request = p.post(form(&[("topic", &p.topic("a")), ("data", "x")])).header("Cookie", &cookie);
    p.send(headers.iter().fold(request, |request, (name, value)| request.header(name, value)))
}

fn publish_guarded(p: &Probe<'_>) -> Outcome {
    for headers in [
        &[][..],
        &[("Origin", "https://evil.example")],
        &[("Origin", "null")],
        &[("Referer", "https://evil.example/page")],
        &[("Origin", "https://evil.example"), ("Referer", p.hub.public_url.as_str())],
    ] {
        let answer = publish(p, headers)?;
        expect(matches!(answer.status(), 400 | 401 | 403), format!("a refusal with {headers:?}"), describe(&answer))?;
    }
    if let Some(origin) = &p.hub.settings.publish_origin {
        for near in [
            format!("{origin}.evil.example"),
            format!("{origin}0"),
            origin.replacen("http://", "https://", 1),
            origin.replacen("https://", "http://", 1),
        ] {
            if near != *origin {
                let answer = publish(p, &[("Origin", &near)])?;
                expect(matches!(answer.status(), 400 | 401 | 403), format!("a refusal with Origin {near}"), describe(&answer))?;
            }
        }
    }
    Ok(())
}

fn publish_allowed(p: &Probe<'_>) -> Outcome {
    let Some(origin) = &p.hub.settings.publish_origin else { return skipped("the suite was told of no publish origin") };
    for headers in [[("Origin", origin.clone())], [("Referer", format!("{origin}/page?x"))]] {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = publish(p, &headers)?;
        expect(answer.status() == 200, format!("200 with {headers:?}"), describe(&answer))?;
    }
    Ok(())
}

fn refused_origin(p: &Probe<'_>) -> Outcome {
    let answer = publish(p, &[("Origin", "https://evil.example")])?;
    expect(answer.status() == 403, "403", describe(&answer))
}

fn names(p: &Probe<'_>) -> Outcome {
    let topic = p.topic("a");
    let (good, bad) = (p.subscriber(&[&topic]), p.token(crate::settings::Role::Subscribe, &["*"]).signed(&crate::token::Key::stranger()));
    let ask = |cookie: String| p.send(p.get(&p.select(&[&topic])).header("Cookie", &cookie));
    if let Some(name) = &p.hub.settings.cookie_name {
        let other = ask(format!("mercureAuthorization={good}"))?;
        return expect(name == "mercureAuthorization" || other.status() == 401, "401 with another name", describe(&other));
    }
    let newer = ask(format!("mercureAuthorization={bad}; __Secure-mercure_access_token={good}"))?;
    expect(newer.status() == 200, "200: the newer name comes first", describe(&newer))?;
    let older = ask(format!("mercureAuthorization={good}; __Secure-mercure_access_token={bad}"))?;
    expect(older.status() == 401, "401: the newer name comes first", describe(&older))?;
    let only = ask(format!("mercureAuthorization={good}"))?;
    expect(only.status() == 200, "200 with the older name alone", describe(&only))
}
