//! Reading the small text files of `/sys` and `/proc`.

use std::{fs::File, io::Read, path::Path};

/// The longest attribute that is read, in bytes; sysfs itself gives one page.
const ATTRIBUTE_BYTES_MAX: u64 = 64 << 10;
/// The most numbers that one list may name: more CPUs than Linux supports.
const LIST_NUMBERS_MAX: usize = 1 << 16;

/// The trimmed text of an attribute; `None` if it is not there, cannot be read, or is not text.
pub fn text(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(ATTRIBUTE_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text.trim().to_owned())
}

/// A decimal number.
pub fn number(path: &Path) -> Option<u64> {
    text(path)?.parse().ok()
}

/// `0` or `1`.
pub fn flag(path: &Path) -> Option<bool> {
    match number(path)? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

/// The word in brackets of `always [madvise] never`; a single word stands for itself.
pub fn chosen(path: &Path) -> Option<String> {
    let text = text(path)?;
    if let Some(word) = text.split_whitespace().find_map(|word| word.strip_prefix('[')?.strip_suffix(']')) {
        return Some(word.to_owned());
    }
    (!text.is_empty() && !text.contains(char::is_whitespace)).then_some(text)
}

/// The rest of the line of a `/proc` status file that begins with `key` and a colon.
pub fn status_field<'a>(status: &'a str, key: &str) -> Option<&'a str> {
    status.lines().find_map(|line| Some(line.strip_prefix(key)?.strip_prefix(':')?.trim()))
}

/// The numbers of a list such as `0-3,8,10-11`, ascending and each once. `None` if it is anything else.
pub fn list(text: &str) -> Option<Vec<u32>> {
    let mut numbers = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.trim().parse::<u32>().ok()?, last.trim().parse::<u32>().ok()?);
        let count = usize::try_from(last.checked_sub(first)?).ok()?;
        if count >= LIST_NUMBERS_MAX - numbers.len() {
            return None;
        }
        numbers.extend(first..=last);
    }
    numbers.sort_unstable();
    numbers.dedup();
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::{chosen, list, status_field};
    use crate::fake::Tree;

    #[test]
    fn lists_are_read_or_refused_whole() {
        assert_eq!(list("0-3,8,10-11\n"), Some(vec![0, 1, 2, 3, 8, 10, 11]));
        assert_eq!(list("3,1-2,2"), Some(vec![1, 2, 3]));
        assert_eq!(list("\n"), Some(vec![]));
        for garbage in ["x", "3-1", "1-", "-", "0-4294967295", "1;2", "99999999999"] {
            assert_eq!(list(garbage), None, "{garbage:?}");
        }
    }

    #[test]
    fn the_chosen_word_is_the_one_in_brackets() {
        let tree = Tree::new();
        tree.file("three", "none [mq-deadline] kyber\n");
        tree.file("one", "none\n");
        tree.file("unclear", "one two\n");
        assert_eq!(chosen(&tree.path("three")).as_deref(), Some("mq-deadline"));
        assert_eq!(chosen(&tree.path("one")).as_deref(), Some("none"));
        assert_eq!(chosen(&tree.path("unclear")), None);
        assert_eq!(chosen(&tree.path("missing")), None);
    }

    #[test]
    fn a_status_key_is_matched_whole() {
        let status = "Seccomp_filters:\t3\nSeccomp:\t2\n";
        assert_eq!(status_field(status, "Seccomp"), Some("2"));
        assert_eq!(status_field(status, "CapEff"), None);
    }
}
