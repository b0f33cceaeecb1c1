//! What the URI templates of dialect 7 match, as the reference line was observed to do it.

use super::{Check, When::Seven, must, observed};
use crate::probe::{Outcome, Probe, expect, form};

pub(super) const CHECKS: &[Check] = &[
    must(Seven, &[203, 218], "a variable matches one segment", one_segment),
    observed(Seven, &[218], "templates match as the table says", table),
    observed(Seven, &[342, 218], "prefix modifiers are ignored, bad ones make a plain string", prefixes),
    must(Seven, &[203], "an invalid template is a plain string that matches itself", invalid),
];

/// Publishes every topic and expects exactly the wanted ones, in order.
fn selects(p: &Probe<'_>, template: &str, topics: &[(&str, bool)]) -> Outcome {
    // A word in front makes all topics this check's own.
    let own = |text: &str| format!("{}:{text}", p.unique("x"));
    let marker = p.unique("marker");
    let mut stream = p.subscribe_query(&form(&[("topic", &own(template)), ("topic", &marker)]), &[])?;
    for (topic, wanted) in topics {
        let id = p.published(&[("topic", &own(topic)), ("data", topic)])?;
        if *wanted {
            stream.next_is(&id, &format!("{template} matches {topic:?}"))?;
        }
    }
    let id = p.published(&[("topic", &marker), ("data", "marker")])?;
    let unwanted: Vec<&str> = topics.iter().filter(|(_, wanted)| !wanted).map(|(topic, _)| *topic).collect();
    stream.next_is(&id, &format!("{template} matches none of {unwanted:?}")).map(drop)
}

fn one_segment(p: &Probe<'_>) -> Outcome {
    selects(
        p,
        "/books/{id}",
        &[("/books/1", true), ("/books/a-b_c~d.e", true), ("/books/1/2", false), ("/book/1", false), ("/books/1?x", false)],
    )
}

fn table(p: &Probe<'_>) -> Outcome {
    const CASES: &[(&str, &[(&str, bool)])] = &[
        (
            "/a/{id}",
            &[
                ("/a/", true),
                ("/a/x,y", true),
                ("/a/%41%c3", true),
                ("/a/%4", false),
                ("/a/x=1", false),
                ("/a/é", false),
                ("/a/x y", false),
            ],
        ),
        ("/b/{id*}", &[("/b/x=1,y=2", true), ("/b/x/y", false)]),
        ("/c/{+rest}", &[("/c/x/y?z=1#f", true), ("/c/[;@:!$&'()*+]", true), ("/c/é", false)]),
        ("/d{#f}", &[("/d", true), ("/d#x/y", true), ("/dx", false)]),
        ("/e{.ext}", &[("/e", true), ("/e.json", true), ("/ejson", false), ("/e.a.b", true)]),
        ("/f{/x}", &[("/f", true), ("/f/1", true), ("/f/1/2", false), ("/f1", false)]),
        ("/g{/a,b}", &[("/g/1/2", true), ("/g/1", true), ("/g/1/2/3", false)]),
        ("/h{/a*}", &[("/h/1/2/3/4", true), ("/h", true)]),
        ("/i{;a}", &[("/i;a=1", true), ("/i;other=1", true), ("/i", true)]),
        ("/j{?a}", &[("/j?a=1", true), ("/j?other=1", true), ("/j", true), ("/ja=1", false)]),
        ("/k{?a,b}", &[("/k?a=1&b=2", true), ("/k?a=1&b=2&c=3", false)]),
        ("/l?x=1{&y}", &[("/l?x=1&y=2", true), ("/l?x=1", true), ("/l?x=1y", false)]),
        ("/m/{a}/{b}", &[("/m/1/2", true), ("/m//", true), ("/m/1", false)]),
        ("/n/{a,b}", &[("/n/1,2", true), ("/n/1/2", false)]),
        ("/o.{id}", &[("/o.1", true), ("/oX1", false)]),
    ];
    CASES.iter().try_for_each(|(template, topics)| selects(p, template, topics))
}

fn prefixes(p: &Probe<'_>) -> Outcome {
    selects(p, "/p/{a:3}", &[("/p/12345", true), ("/p/1", true), ("/p/1/2", false)])?;
    selects(p, "/q/{a:9999}", &[("/q/12345", true)])?;
    selects(p, "/r/{a:0}", &[("/r/1", false), ("/r/{a:0}", true)])?;
    selects(p, "/s/{a:10000}", &[("/s/1", false), ("/s/{a:10000}", true)])
}

fn invalid(p: &Probe<'_>) -> Outcome {
    for template in ["/t/{", "/u/{}", "/v/{a", "/w/{a b}", "/x/{=a}"] {
        selects(p, template, &[("/t/1", false), ("/u/1", false), ("/v/1", false), (template, true)])?;
    }
    // Selectors and topics are compared before any template is.
    let same = p.unique("/y/{id}");
    let mut stream = p.subscribe(&[&same], &[])?;
    let id = p.published(&[("topic", &same), ("data", "x")])?;
    let event = stream.next_is(&id, "a template equals itself")?;
    expect(event.data == "x", "x", event.data)
}
