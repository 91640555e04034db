//! Right and wrong code side by side, with a switch between them.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::{Context as _, bail};

use super::list::{Form, LIST, Mutant};

/// The switch and its crate, which says it shorter.
const ABI: &str = "dataplane/abi/";

/// A place in a file and the mutant that belongs there.
struct Place<'a> {
    range: Range<usize>,
    /// Its number: one more than its index in the list.
    number: usize,
    mutant: &'a Mutant,
}

/// The files that have mutants, with all of them woven in. `read` gives a file's text; fails with every mutant that does not fit.
pub(super) fn all(
    mutants: &[Mutant],
    read: impl Fn(&str) -> anyhow::Result<String>,
) -> anyhow::Result<BTreeMap<String, String>> {
    let mut by_file: BTreeMap<&str, Vec<(usize, &Mutant)>> = BTreeMap::new();
    for (index, mutant) in mutants.iter().enumerate() {
        by_file.entry(&mutant.file).or_default().push((index + 1, mutant));
    }
    let mut woven = BTreeMap::new();
    let mut findings = Vec::new();
    for (file, mutants) in by_file {
        let ids = || mutants.iter().map(|(_, mutant)| mutant.id.as_str()).collect::<Vec<_>>().join(", ");
        let text = read(file).with_context(|| format!("cannot read {file}, where {} should be", ids()))?;
        match one(&text, &mutants) {
            Ok(text) => drop(woven.insert(file.to_owned(), text)),
            Err(mut found) => findings.append(&mut found),
        }
    }
    if findings.is_empty() {
        return Ok(woven);
    }
    bail!("mutants that do not fit the sources:\n  {}", findings.join("\n  "))
}

/// One file with its mutants.
fn one(text: &str, mutants: &[(usize, &Mutant)]) -> Result<String, Vec<String>> {
    let mut places = Vec::new();
    let mut findings = Vec::new();
    for &(number, mutant) in mutants {
        match locate(text, mutant) {
            Ok(range) => places.push(Place { range, number, mutant }),
            Err(why) => findings.push(format!("{} in {}: {why}", mutant.id, mutant.file)),
        }
    }
    places.sort_by_key(|place| (place.range.start, place.range.end));
    for pair in places.windows(2) {
        if let [first, second] = pair
            && first.range != second.range
            && first.range.end > second.range.start
        {
            findings.push(format!(
                "{} and {} overlap in {}: choose a shorter `find`, or the same for both",
                first.mutant.id, second.mutant.id, first.mutant.file
            ));
        }
    }
    if !findings.is_empty() {
        return Err(findings);
    }
    let mut woven = String::with_capacity(text.len() * 2);
    let mut at = 0;
    for group in places.chunk_by(|a, b| a.range == b.range) {
        let Some(first) = group.first() else { continue };
        woven.push_str(&text[at..first.range.start]);
        let right = text[first.range.clone()].to_owned();
        woven.push_str(&group.iter().fold(right, |code, place| choice(place, &code)));
        at = first.range.end;
    }
    woven.push_str(&text[at..]);
    Ok(woven)
}

/// Where the mutant's code is in the file.
fn locate(text: &str, mutant: &Mutant) -> Result<Range<usize>, String> {
    let once = |name: &str, text: &str, code: &str| -> Result<Range<usize>, String> {
        let found = occurrences(text, code);
        match <[Range<usize>; 1]>::try_from(found) {
            Ok([range]) => Ok(range),
            Err(found) if found.is_empty() => {
                Err(format!("`{name}` is not there any more; write in {LIST} what the code is now"))
            }
            Err(found) => Err(format!(
                "`{name}` is there {} times; take more code, or give the code around it as `within`",
                found.len()
            )),
        }
    };
    let Some(within) = &mutant.within else { return once("find", text, &mutant.find) };
    let outer = once("within", text, within)?;
    let inner = once("find", &text[outer.clone()], &mutant.find)?;
    Ok(outer.start + inner.start..outer.start + inner.end)
}

/// Everywhere that `code` is in `text`, where any white space is as good as other white space.
fn occurrences(text: &str, code: &str) -> Vec<Range<usize>> {
    let words: Vec<&str> = code.split_whitespace().collect();
    let Some((first, rest)) = words.split_first() else { return Vec::new() };
    let mut found = Vec::new();
    for (start, _) in text.match_indices(first) {
        let mut end = start + first.len();
        let fits = rest.iter().all(|word| {
            let after = &text[end..];
            let trimmed = after.trim_start();
            let fits = trimmed.len() < after.len() && trimmed.starts_with(word);
            end += after.len() - trimmed.len() + word.len();
            fits
        });
        if fits {
            found.push(start..end);
        }
    }
    found
}

/// The code that does what the mutant says while it is on, and else what `right` says.
fn choice(place: &Place<'_>, right: &str) -> String {
    let Mutant { id, file, put, form, .. } = place.mutant;
    let put = put.trim();
    let home = if file.starts_with(ABI) { "crate" } else { "::dataplane_abi" };
    // The name is what the compiler shows should the code behind it be wrong.
    let on = format!("{home}::mutant::on({} /* {id} */)", place.number);
    // Braces on lines of their own: a line may end in a comment.
    match form {
        Form::Expression => format!("(if {on} {{\n{put}\n}} else {{\n{right}\n}})"),
        Form::Statement => format!("if {on} {{\n{put}\n}} else {{\n{right}\n}}"),
        Form::Arm => {
            let (head, body) = put.split_once("=>").unwrap_or((put, ""));
            match head.split_once(" if ") {
                Some((pattern, guard)) => {
                    format!("{pattern} if {on} && ({}) =>{body}\n{right}", guard.trim())
                }
                None => format!("{} if {on} =>{body}\n{right}", head.trim()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::list::example::mutant;
    use super::*;

    fn woven(text: &str, mutants: &[Mutant]) -> anyhow::Result<String> {
        let mut files = all(mutants, |_| Ok(text.to_owned()))?;
        Ok(files
            .remove("dataplane/core/src/a.rs")
            .unwrap_or_default()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" "))
    }

    #[test]
    fn each_form_has_its_switch() {
        for (form, text, find, put, expect) in [
            (
                Form::Expression,
                "f(a +\n    b);",
                "a + b",
                "a",
                "f((if ::dataplane_abi::mutant::on(1 /* m */) { a } else { a + b }));",
            ),
            (
                Form::Statement,
                "a(); b();",
                "a();",
                "",
                "if ::dataplane_abi::mutant::on(1 /* m */) { } else { a(); } b();",
            ),
            (
                Form::Arm,
                "match x { 1 => a, _ => b }",
                "1 => a,",
                "1 => b,",
                "match x { 1 if ::dataplane_abi::mutant::on(1 /* m */) => b, 1 => a, _ => b }",
            ),
            (
                Form::Arm,
                "match x { n if n > 1 => a, _ => b }",
                "n if n > 1 => a,",
                "n if n > 2 => a,",
                "match x { n if ::dataplane_abi::mutant::on(1 /* m */) && (n > 2) => a, n if n > 1 => a, _ => b }",
            ),
        ] {
            assert_eq!(woven(text, &[mutant("m", form, find, put)]).unwrap(), expect);
        }
    }

    #[test]
    fn two_mutants_of_one_place_are_two_choices() {
        let mutants = [mutant("m", Form::Expression, "a", "b"), mutant("n", Form::Expression, "a", "c")];
        assert_eq!(
            woven("a;", &mutants).unwrap(),
            "(if ::dataplane_abi::mutant::on(2 /* n */) { c } else { (if ::dataplane_abi::mutant::on(1 /* m */) { b } else { a }) });"
        );
    }

    #[test]
    fn in_its_own_crate_the_switch_is_near() {
        let near =
            Mutant { file: "dataplane/abi/src/a.rs".to_owned(), ..mutant("m", Form::Expression, "a", "b") };
        let files = all(&[near], |_| Ok("a".to_owned())).unwrap();
        assert!(files["dataplane/abi/src/a.rs"].contains("if crate::mutant::on(1 /* m */)"));
    }

    #[test]
    fn the_code_around_tells_places_apart() {
        let mut second = mutant("m", Form::Expression, "x > 1", "x > 2");
        second.within = Some("while x > 1".to_owned());
        assert_eq!(
            woven("if x > 1 {} while x > 1 {}", &[second]).unwrap(),
            "if x > 1 {} while (if ::dataplane_abi::mutant::on(1 /* m */) { x > 2 } else { x > 1 }) {}"
        );
    }

    #[test]
    fn what_does_not_fit_is_named_with_a_remedy() {
        for (text, mutants, says) in [
            ("b", vec![mutant("gone", Form::Expression, "a", "c")], ["gone", "not there any more"]),
            ("a a", vec![mutant("twice", Form::Expression, "a", "c")], ["twice", "2 times"]),
            (
                "a b c",
                vec![
                    mutant("left", Form::Expression, "a b", "c"),
                    mutant("right", Form::Expression, "b c", "d"),
                ],
                ["left and right", "overlap"],
            ),
        ] {
            let error = woven(text, &mutants).unwrap_err().to_string();
            assert!(says.iter().all(|part| error.contains(part)), "{error}");
        }
    }
}
