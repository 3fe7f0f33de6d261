//! docs/ reads as one book: every page is in its index, and what pages point at is there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const INDEX: &str = "docs/index.md";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(page: &Path) -> String {
    std::fs::read_to_string(page).unwrap_or_else(|e| panic!("{}: {e}", page.display()))
}

/// Every page of docs/, and those beside it that point into it.
fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<_> = std::fs::read_dir(root().join("docs"))
        .expect("docs")
        .map(|entry| entry.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "md"))
        .collect();
    for beside in [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "CHANGELOG.md",
    ] {
        pages.push(root().join(beside));
    }
    pages.sort();
    pages
}

/// What a page points at by `](…)`, outside of its blocks and pieces of code.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut in_code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        // Every second piece stands between back quotes.
        let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("code");
        for piece in prose.split("](").skip(1) {
            found.extend(piece.split(')').next().map(str::to_owned));
        }
    }
    found
}

/// A heading as the part of a link behind `#`.
fn anchor(heading: &str) -> String {
    let heading = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = heading
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// What in a text that stands at `page` leads nowhere.
fn broken(page: &Path, text: &str) -> Vec<String> {
    let is_elsewhere = |link: &str| link.contains("://") || link.starts_with("mailto:");
    let leads_nowhere = |link: &String| {
        let (path, part) = link.split_once('#').unwrap_or((link, ""));
        let target = match path {
            "" => page.to_owned(),
            path => page.parent().expect("a folder").join(path),
        };
        if !target.exists() {
            return true;
        }
        let headings = || {
            let text = read(&target);
            let lines: Vec<_> = text
                .lines()
                .filter(|line| line.starts_with('#'))
                .map(anchor)
                .collect();
            lines
        };
        !part.is_empty() && !headings().contains(&part.to_owned())
    };
    let links = links(text).into_iter();
    links
        .filter(|link| !is_elsewhere(link))
        .filter(leads_nowhere)
        .collect()
}

#[test]
fn every_page_is_in_the_index() {
    let text = read(&root().join(INDEX));
    let listed: BTreeSet<_> = links(&text).into_iter().collect();
    let missing: Vec<_> = pages()
        .into_iter()
        .filter(|page| page.parent().is_some_and(|folder| folder.ends_with("docs")))
        .filter_map(|page| Some(page.file_name()?.to_string_lossy().into_owned()))
        .filter(|name| name != "index.md" && !listed.contains(name))
        .collect();
    assert!(missing.is_empty(), "{INDEX} does not have {missing:?}");
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut wrong = Vec::new();
    for page in pages() {
        for link in broken(&page, &read(&page)) {
            wrong.push(format!("{}: {link}", page.display()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_link_that_leads_nowhere_is_noticed() {
    let page = root().join(INDEX);
    let text = "[a](none.md) [b](testing.md) [c](testing.md#mixes) [d](testing.md#none) `[e](none.md)` [f](https://none.example/)\n\
        ```\n[g](none.md)\n```\n";
    assert_eq!(broken(&page, text), ["none.md", "testing.md#none"]);
}
