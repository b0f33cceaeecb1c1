//! Matcher parameters of dialect 8: names, values, `*`, exact.

use super::{
    Check,
    When::{Each, Eight},
    must, observed,
};
use crate::probe::{Outcome, Probe, describe, encoded, expect, form};

pub(super) const CHECKS: &[Check] = &[
    must(Eight, &[18, 4], "match, match_exact and match_urlpattern mix on one connection", mixed),
    must(Eight, &[19, 334], "the query is parsed as WHATWG form data", whatwg),
    must(Eight, &[20, 64], "names that begin with match in any case and are no matcher are 400", typos),
    must(Eight, &[20], "names are compared after decoding, others are ignored", other_names),
    must(Eight, &[35, 64], "an unsupported matcher type is 400", unsupported),
    must(Eight, &[21], "values with control or format characters are 400", bad_values),
    must(Eight, &[30], "* matches every topic, whatever the type", star),
    must(Each, &[31, 203], "exact is byte for byte", exact),
    observed(Each, &[337], "an empty matcher opens a stream that shows nothing of others", empty),
];

fn mixed(p: &Probe<'_>) -> Outcome {
    let [a, b, c] = ["a", "b", "c/1"].map(|name| p.topic(name));
    let query = form(&[("match", &a), ("match_exact", &b), ("match_urlpattern", &p.topic("c/:id")), ("match", &p.topic("e"))]);
    let mut stream = p.subscribe_query(&query, &[])?;
    let ids = [&a, &b].map(|topic| p.published(&[("topic", topic), ("data", "x")]));
    p.published(&[("topic", &p.topic("d")), ("data", "not selected")])?;
    let last = p.published(&[("topic", &c), ("data", "x")])?;
    let [first, second] = ids;
    stream.then(&[&first?, &second?, &last], "each kind selects its own")
}

fn whatwg(p: &Probe<'_>) -> Outcome {
    let name = p.unique("t");
    for (written, meant) in [
        (format!("match={name}+x"), format!("{name} x")),
        (format!("match={name}%20x"), format!("{name} x")),
        (format!("match={name}%zz"), format!("{name}%zz")),
        (format!("match={name}%"), format!("{name}%")),
        (format!("match={name};x=1"), format!("{name};x=1")),
        (format!("match={name}=x"), format!("{name}=x")),
        (format!("&&match={name}2&"), format!("{name}2")),
        (format!("foo&match={name}3"), format!("{name}3")),
        (format!("match={name}%2B"), format!("{name}+")),
        (format!("match={name}%C3%A9"), format!("{name}é")),
    ] {
        let mut stream = p.subscribe_query(&written, &[])?;
        let id = p.published(&[("topic", &meant), ("data", "x")])?;
        stream.next_is(&id, &format!("{written} means {meant:?}"))?;
    }
    Ok(())
}

fn typos(p: &Probe<'_>) -> Outcome {
    let good = form(&[("match", &p.topic("a"))]);
    for name in [
        "Match",
        "MATCH",
        "match_Exact",
        "match_EXACT",
        "Match_urlpattern",
        "matches",
        "match_",
        "match-exact",
        "match[]",
        "matcher",
        "mAtCh_x",
        "%6Datchx",
    ] {
        for query in [format!("{name}=x"), format!("{good}&{name}=x"), format!("{good}&{name}")] {
            let answer = p.subscribing(&query)?;
            expect(answer.status() == 400, format!("400 for the query {query}"), describe(&answer))?;
        }
    }
    Ok(())
}

fn other_names(p: &Probe<'_>) -> Outcome {
    let topic = p.topic("a");
    for query in [format!("%6D%61tch={}", encoded(&topic)), format!("match%5Fexact={}&foo=1&mat=2&amatch=3&_match", encoded(&topic))] {
        let mut stream = p.subscribe_query(&query, &[])?;
        let id = p.published(&[("topic", &topic), ("data", "x")])?;
        stream.next_is(&id, &query)?;
    }
    Ok(())
}

fn unsupported(p: &Probe<'_>) -> Outcome {
    for kind in ["regex", "cel", "urltemplate", "glob", "exacts", "prefix0"] {
        let query = format!("match_{kind}=x&{}", p.select(&[&p.topic("a")]));
        let answer = p.subscribing(&query)?;
        expect(answer.status() == 400, format!("400 for match_{kind}"), describe(&answer))?;
    }
    Ok(())
}

fn bad_values(p: &Probe<'_>) -> Outcome {
    for character in ['\0', '\t', '\n', '\r', '\u{7f}', '\u{85}', '\u{ad}', '\u{200b}', '\u{202e}', '\u{2066}', '\u{feff}', '\u{e0041}'] {
        for name in ["match", "match_exact", "match_urlpattern"] {
            let query = form(&[("match", &p.topic("a")), (name, &format!("https://a.example/{character}"))]);
            let answer = p.subscribing(&query)?;
            expect(answer.status() == 400, format!("400 for U+{:04X} in {name}", character as u32), describe(&answer))?;
        }
    }
    Ok(())
}

fn star(p: &Probe<'_>) -> Outcome {
    for name in ["match", "match_exact", "match_urlpattern"] {
        let mut stream = p.subscribe_query(&format!("{name}=*"), &[])?;
        let strange = p.unique("no url: http://[ ");
        let id = p.published(&[("topic", &strange), ("data", "x")])?;
        stream.first(&format!("{name}=* selects the topic {strange:?}"), |event| event.id.as_deref() == Some(&id))?;
    }
    Ok(())
}

fn exact(p: &Probe<'_>) -> Outcome {
    let name = p.unique("t");
    let topic = format!("https://conformance.example/{name}/é/A%41?x#y");
    let mut stream = p.subscribe(&[&topic], &[])?;
    for other in [
        format!("https://CONFORMANCE.example/{name}/é/A%41?x#y"),
        format!("https://conformance.example/{name}/e\u{301}/A%41?x#y"),
        format!("https://conformance.example/{name}/%C3%A9/A%41?x#y"),
        format!("https://conformance.example/{name}/é/AA?x#y"),
        format!("https://conformance.example/{name}/é/a%41?x#y"),
        format!("https://conformance.example:443/{name}/é/A%41?x#y"),
        format!("https://conformance.example/./{name}/é/A%41?x#y"),
        format!("https://conformance.example/{name}/é/A%41?x"),
        format!("{topic} "),
        format!("{topic}/"),
    ] {
        p.published(&[("topic", &other), ("data", &other)])?;
    }
    let id = p.published(&[("topic", &topic), ("data", "x")])?;
    stream.next_is(&id, "only the very same bytes match")?;
    // A relative string is not resolved against anything.
    let absolute = format!("{}/{name}", p.hub.public_origin());
    let relative = format!("/{name}");
    let mut stream = p.subscribe(&[&relative], &[])?;
    p.published(&[("topic", &absolute), ("data", "x")])?;
    let id = p.published(&[("topic", &relative), ("data", "x")])?;
    stream.next_is(&id, "no base URL is used").map(drop)
}

fn empty(p: &Probe<'_>) -> Outcome {
    let topic = p.topic("a");
    for query in [format!("{}=&{}", p.selector(), p.select(&[&topic])), format!("{}&{}", p.selector(), p.select(&[&topic]))] {
        let mut stream = p.subscribe_query(&query, &[])?;
        p.published(&[("topic", &p.topic("other")), ("data", "x")])?;
        let id = p.published(&[("topic", &topic), ("data", "x")])?;
        stream.next_is(&id, "the empty matcher selects nothing")?;
    }
    Ok(())
}
