//! docs/testing.md names a test for each failure of the field; a name without a test would be a promise and no more.

use std::collections::HashSet;
use std::path::Path;

/// Names of all tests in the sources below `folder`.
fn tests(folder: &Path, all: &mut HashSet<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            tests(&path, all);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = std::fs::read_to_string(&path).expect("a source");
            all.extend(tests_in(&text));
        }
    }
}

/// Names of the functions of a source that have `#[test]` or `#[tokio::test]` above them, with nothing but other
/// attributes and comments between.
fn tests_in(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut marked = false;
    for line in text.lines().map(str::trim) {
        if line == "#[test]" || line == "#[tokio::test]" || line.starts_with("#[tokio::test(") {
            marked = true;
        } else if !(line.starts_with("#[") || line.starts_with("//")) {
            let bare = line.trim_start_matches("pub ").trim_start_matches("async ");
            if let Some((name, _)) = bare.strip_prefix("fn ").and_then(|f| f.split_once('('))
                && marked
            {
                found.push(name.to_owned());
            }
            marked = false;
        }
    }
    found
}

#[test]
fn only_what_is_marked_as_a_test_is_taken_for_one() {
    let text = "
        #[test]
        fn plain() {}
        #[tokio::test(flavor = \"multi_thread\", worker_threads = 2)]
        #[cfg(feature = \"mixer\")]
        // Why.
        async fn with_more() {}
        fn helper() {}
        #[test]
        const NO: u8 = 0;
        fn after_something_else() {}
        #[cfg(test)]
        fn for_tests() {}
        // fn in_a_comment() {}
        #[tokio::test]
        async fn bare(
        ) {}
    ";
    assert_eq!(tests_in(text), ["plain", "with_more", "bare"]);
}

#[test]
fn lessons_name_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut known = HashSet::new();
    tests(&root.join("src"), &mut known);
    tests(&root.join("tests"), &mut known);
    let page = std::fs::read_to_string(root.join("docs/testing.md")).expect("the page");
    let (_, table) = page
        .split_once("| failure in the field |")
        .expect("the table");
    let (table, _) = table.split_once("\n\n").expect("its end");
    let mut rows = 0;
    for row in table.lines().skip(2) {
        let names: Vec<&str> = row.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test: {row}");
        for name in names {
            assert!(known.contains(name), "there is no test {name}");
        }
        rows += 1;
    }
    assert!(rows >= 15, "{rows} rows");
}
