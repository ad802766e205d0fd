//! What a store that understands S3 has in a folder, asked for by us: object_store gives up at names that hold an empty
//! segment or a control character, and whoever may write to a bucket can put such a name there.

use std::collections::HashSet;

use http::Method;
use percent_encoding::percent_decode_str;

use super::answer::{element, unescaped};
use super::parts::encoded;
use super::request::{Request, S3};
use crate::archive::shelf::{Entry, EntryKind};
use crate::archive::store::{Reason, StoreFault};

impl S3 {
    /// All directly in a folder: its key with a `/` at its end, or nothing. In no order.
    pub(super) async fn list(&self, folder: &str) -> Result<Vec<Entry>, StoreFault> {
        let (mut entries, mut next, mut known) = (Vec::new(), None::<String>, HashSet::new());
        loop {
            let mut query = String::new();
            // Parameters in the order of their names, as signatures want them.
            if let Some(token) = &next {
                query.push_str(&format!("continuation-token={}&", encoded(token)));
            }
            query.push_str("delimiter=%2F&encoding-type=url&list-type=2&prefix=");
            query.push_str(&encoded(folder));
            let answer = self.send(&Request::new(Method::GET, "", query)).await?.check()?;
            let page = page(&String::from_utf8_lossy(&answer.body), folder)?;
            entries.extend(page.entries);
            match page.next {
                // One that says the same again would never end.
                Some(token) if known.insert(token.clone()) => next = Some(token),
                Some(_) => return Err(strange("it told the same part of a listing twice")),
                None => return Ok(entries),
            }
        }
    }
}

#[derive(Debug)]
struct Page {
    entries: Vec<Entry>,
    next: Option<String>,
}

fn strange(what: &str) -> StoreFault {
    StoreFault::new(Reason::Other, format!("the store cannot be listed: {what}"))
}

fn page(text: &str, folder: &str) -> Result<Page, StoreFault> {
    let Some(text) = element(text, "ListBucketResult") else {
        return Err(strange("the answer is no ListBucketResult"));
    };
    let is_encoded = element(text, "EncodingType").is_some_and(|kind| kind.trim() == "url");
    let name = |text: &str, of: &str| {
        let told = element(text, of).ok_or_else(|| strange("an entry has no name"))?;
        // Blanks at its ends belong to a name.
        let told = unescaped(told);
        let key = if is_encoded { decoded(&told) } else { told.into_bytes() };
        let below = key.strip_prefix(folder.as_bytes()).map(<[u8]>::to_vec);
        below.ok_or_else(|| strange("it told a name outside of what was asked for"))
    };
    let mut entries = Vec::new();
    for prefix in text.split("<CommonPrefixes>").skip(1) {
        let below = name(prefix, "Prefix")?;
        entries.push(entry(below.strip_suffix(b"/").unwrap_or(&below), EntryKind::Folder, 0));
    }
    for object in text.split("<Contents>").skip(1) {
        let below = name(object, "Key")?;
        let bytes = element(object, "Size").and_then(|size| size.trim().parse().ok());
        let bytes = bytes.ok_or_else(|| strange("an object has no size"))?;
        // What a console makes of an empty folder is nothing that was added.
        if !below.is_empty() || bytes > 0 {
            entries.push(entry(&below, EntryKind::File, bytes));
        }
    }
    let goes_on = element(text, "IsTruncated").is_some_and(|more| more.trim() == "true");
    // Some stores take the last name for it, blanks and all.
    let next = goes_on.then(|| element(text, "NextContinuationToken").map(unescaped)).flatten();
    if goes_on && next.as_ref().is_none_or(|token| token.contains(char::REPLACEMENT_CHARACTER)) {
        return Err(strange("it goes on, and it is not told where: a name in it cannot be written in XML"));
    }
    Ok(Page { entries, next })
}

fn decoded(text: &str) -> Vec<u8> {
    percent_decode_str(&text.replace('+', "%20")).collect()
}

/// What no file system would take for a name is told and never asked for.
fn entry(name: &[u8], kind: EntryKind, bytes: u64) -> Entry {
    let text = String::from_utf8_lossy(name);
    let is_odd = text.contains(char::REPLACEMENT_CHARACTER)
        || matches!(text.as_ref(), "" | "." | "..")
        || text.chars().any(char::is_control)
        || text.contains('/');
    let kind = if is_odd { EntryKind::Other } else { kind };
    Entry { name: text.into_owned(), kind, bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(inside: &str) -> Result<Page, StoreFault> {
        page(
            &format!("<?xml version=\"1.0\"?>\n<ListBucketResult xmlns=\"x\">{inside}</ListBucketResult>"),
            "a/b/",
        )
    }

    fn object(key: &str) -> String {
        format!("<Contents><Key>{key}</Key><LastModified>x</LastModified><Size>7</Size></Contents>")
    }

    fn file(name: &str, kind: EntryKind) -> Entry {
        Entry { name: name.to_owned(), kind, bytes: 7 }
    }

    #[test]
    fn names_are_what_they_are_and_odd_ones_are_told() {
        let keys = ["a/b/dt%3D1", "a/b/x%0Ay", "a/b/.", "a/b/", "a/b/%FF", "a/b/%2B+%26amp%3B"];
        let text = keys.map(object).concat()
            + "<CommonPrefixes><Prefix>a/b/hour%3D09/</Prefix></CommonPrefixes>\
               <CommonPrefixes><Prefix>a/b//</Prefix></CommonPrefixes><EncodingType>url</EncodingType>";
        let folder = |name: &str, kind| Entry { name: name.to_owned(), kind, bytes: 0 };
        let expected = [
            folder("hour=09", EntryKind::Folder),
            folder("", EntryKind::Other),
            file("dt=1", EntryKind::File),
            file("x\ny", EntryKind::Other),
            file(".", EntryKind::Other),
            file("", EntryKind::Other),
            file("\u{fffd}", EntryKind::Other),
            file("+ &amp;", EntryKind::File),
        ];
        assert_eq!(read(&text).unwrap().entries, expected);
        let marker = object("a/b/").replace(">7<", ">0<");
        assert_eq!(read(&marker).unwrap().entries, []);
    }

    #[test]
    fn names_of_a_store_that_does_not_encode_them_are_as_in_any_xml() {
        let page =
            read(&(object("a/b/%41 &lt;+&amp;lt;") + &object("a/b/&#xA;") + &object("a/b/ &#34;"))).unwrap();
        let [plain, odd, blank] =
            [("%41 <+&lt;", EntryKind::File), ("\n", EntryKind::Other), (" \"", EntryKind::File)];
        assert_eq!(page.entries, [plain, odd, blank].map(|(name, kind)| file(name, kind)));
    }

    #[test]
    fn what_is_no_listing_is_an_error() {
        let told = |inside| read(inside).unwrap_err().to_string();
        assert!(told("<Contents><Size>1</Size></Contents>").contains("no name"));
        assert!(told("<Contents><Key>a/b/c</Key></Contents>").contains("no size"));
        assert!(told("<IsTruncated>true</IsTruncated>").contains("not told where"));
        assert!(page("<html>", "").unwrap_err().to_string().contains("ListBucketResult"));
        assert!(told(&object("elsewhere")).contains("outside"));
        let token = |text: &str| {
            read(&format!(
                "<IsTruncated>true</IsTruncated><NextContinuationToken>{text}</NextContinuationToken>"
            ))
        };
        assert!(token("\u{fffd}").is_err());
        assert_eq!(token(" z ").unwrap().next.as_deref(), Some(" z "));
        let next = token("t&amp;/=");
        assert_eq!(next.unwrap().next.as_deref(), Some("t&/="));
        assert_eq!(read("").unwrap().next, None);
    }
}
