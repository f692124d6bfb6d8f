//! Where a delivery's files lie and what they are called: `[sink] path`, `file` and `trigger`.

use super::SinkConfig;
use crate::error::Result;
use crate::format::{Compression, Format};
use crate::job::manifest::MANIFEST_SUFFIX;

/// A name with a word before its extension, where it has one: `a.csv.gz` becomes `a.word.csv.gz`.
fn with_word(name: &str, word: &str) -> String {
    // A point within a placeholder begins no extension.
    let tail = name.rfind('}').map_or(0, |end| end + 1);
    let (before, after) = name.split_at(tail);
    let packed = [".gz", ".zst"].into_iter().find(|ending| after.ends_with(ending));
    let plain = after.strip_suffix(packed.unwrap_or_default()).unwrap_or(after);
    let at = tail + plain.rfind('.').unwrap_or(plain.len());
    match before.is_empty() && at == 0 {
        true => format!("{name}.{word}"),
        false => format!("{}.{word}{}", &name[..at], &name[at..]),
    }
}

/// The placeholder for the number of a file among those of one delivery.
const PART: &str = "{part}";

/// The place of a delivery, rendered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its folder, under the connection's url.
    pub folder: String,
    /// What its files are called, where the definition says it.
    pub file: Option<FileNames>,
}

impl Place {
    /// A folder that is the delivery's own.
    pub fn folder(path: &str) -> Place {
        Place { folder: path.to_owned(), file: None }
    }
}

/// The fixed names of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileNames {
    /// The name, up to the number of the file where there is one.
    before: String,
    /// What follows the number.
    after: Option<String>,
    /// `{file}`: the name, without the number.
    pub base: String,
    /// The name of the trigger, if there is one.
    pub trigger: Option<String>,
}

impl FileNames {
    /// Whether there is exactly one file.
    pub fn is_one(&self) -> bool {
        self.after.is_none()
    }

    /// The name of the file that is the `index`th, from 0.
    pub fn part(&self, index: usize) -> String {
        match &self.after {
            Some(after) => format!("{}{index:05}{after}", self.before),
            None => self.before.clone(),
        }
    }

    /// The name of the manifest.
    pub fn manifest(&self) -> String {
        format!("{}{MANIFEST_SUFFIX}", self.base)
    }
}

impl SinkConfig {
    /// `file` without `{part}` and the `-`, `_` or `.` before it: what `{file}` stands for.
    pub fn base(&self) -> Option<String> {
        let file = self.file.as_deref()?;
        let Some((before, after)) = file.split_once(PART) else { return Some(file.to_owned()) };
        let separator = ['-', '_', '.'];
        Some(match before.strip_suffix(separator) {
            Some(before) => format!("{before}{after}"),
            None if before.is_empty() => after.trim_start_matches(separator).to_owned(),
            None => format!("{before}{after}"),
        })
    }

    /// The trigger's name, with the file's in it.
    fn trigger_text(&self) -> Option<String> {
        Some(self.trigger.as_deref()?.replace("{file}", &self.base()?))
    }

    /// The template that tells deliveries apart: their folder, or their file in it.
    pub fn template(&self) -> Option<String> {
        let path = self.path.as_deref()?;
        Some(match self.base() {
            Some(base) => format!("{path}/{base}"),
            None => path.to_owned(),
        })
    }

    /// The templates of everything that a delivery puts where recipients look: its folder, or its
    /// file, manifest and trigger. `{part}` may be in the file's.
    pub fn places(&self) -> Vec<String> {
        let Some(path) = self.path.as_deref() else { return Vec::new() };
        let (Some(file), Some(base)) = (self.file.as_deref(), self.base()) else {
            return vec![path.to_owned()];
        };
        let names = [Some(file.to_owned()), Some(base + MANIFEST_SUFFIX), self.trigger_text()];
        names.into_iter().flatten().map(|name| format!("{path}/{name}")).collect()
    }

    /// Where a supplement to a delivery goes: a folder in that delivery's, or names of its own.
    #[must_use]
    pub fn supplement(&self, number: u32) -> SinkConfig {
        let mut sink = self.clone();
        let word = format!("supplement-{number}");
        let renamed = |name: &String| with_word(name, &word);
        match &self.file {
            None => sink.path = self.path.as_ref().map(|path| format!("{path}/{word}")),
            Some(file) => {
                sink.file = Some(renamed(file));
                // `{file}` is the new name already.
                let fixed = |text: &&String| !text.contains("{file}");
                let trigger = self.trigger.as_ref().filter(fixed).map(renamed);
                sink.trigger = trigger.or(sink.trigger);
            }
        }
        sink
    }

    /// The place of one delivery. `render` fills in a template; `mark` is a text that stands in
    /// none of the values.
    ///
    /// # Errors
    /// Those of `render`.
    pub fn place(
        &self,
        mark: &str,
        mut render: impl FnMut(&str) -> Result<String>,
    ) -> Result<Option<Place>> {
        let Some(path) = &self.path else { return Ok(None) };
        let folder = render(path)?;
        let (Some(file), Some(base)) = (&self.file, self.base()) else {
            return Ok(Some(Place { folder, file: None }));
        };
        let name = render(&file.replace(PART, mark))?;
        let (before, after) = match name.split_once(mark) {
            Some((before, after)) => (before.to_owned(), Some(after.to_owned())),
            None => (name, None),
        };
        let base = render(&base)?;
        let trigger = self.trigger_text().map(|text| render(&text)).transpose()?;
        Ok(Some(Place { folder, file: Some(FileNames { before, after, base, trigger }) }))
    }

    /// The format and compression of its files: as given, else as the file's name tells, else the
    /// usual ones.
    pub fn kind(&self) -> (Format, Compression) {
        let base = self.base().unwrap_or_default();
        let told = Format::of_name(&base).map(|(format, _)| format);
        let format = self.format.or(told).unwrap_or(Format::Parquet);
        let compression = self.compression.unwrap_or(match base.rsplit_once('.') {
            _ if format.is_typed() => format.usual_compression(),
            Some((_, "gz")) => Compression::Gzip,
            Some((_, "zst")) => Compression::Zstd,
            _ => format.usual_compression(),
        });
        (format, compression)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_supplement_has_names_of_its_own() {
        for (name, expected) in [
            ("a.csv.gz", "a.supplement-2.csv.gz"),
            ("ORDERS_{window_start:%Y.%m}.csv", "ORDERS_{window_start:%Y.%m}.supplement-2.csv"),
            ("x-{part}.jsonl.zst", "x-{part}.supplement-2.jsonl.zst"),
            ("v1.2-{run}", "v1.2-{run}.supplement-2"),
            ("plain", "plain.supplement-2"),
            (".hidden", ".hidden.supplement-2"),
            ("{run}.gz", "{run}.supplement-2.gz"),
        ] {
            assert_eq!(with_word(name, "supplement-2"), expected);
        }
        let folder = config(serde_json::json!({})).supplement(1);
        assert!(folder.template().unwrap().ends_with("/supplement-1"));
        let named = config(serde_json::json!({"file": "a.csv", "trigger": "{file}.done"}));
        assert_eq!(named.supplement(1).trigger.unwrap(), "{file}.done");
        let fixed = config(serde_json::json!({"file": "a.csv", "trigger": "ready.txt"}));
        assert_eq!(fixed.supplement(1).trigger.unwrap(), "ready.supplement-1.txt");
    }

    fn config(more: serde_json::Value) -> SinkConfig {
        let mut whole = serde_json::json!({"connection": "acme", "path": "in"});
        whole.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(whole).unwrap()
    }

    #[test]
    fn names_follow_from_the_file() {
        for (file, base, first) in [
            ("ORDERS.csv.gz", "ORDERS.csv.gz", "ORDERS.csv.gz"),
            ("ORDERS-{part}.csv", "ORDERS.csv", "ORDERS-00007.csv"),
            ("ORDERS{part}.csv", "ORDERS.csv", "ORDERS00007.csv"),
            ("{part}_ORDERS.csv", "ORDERS.csv", "00007_ORDERS.csv"),
        ] {
            let config = config(serde_json::json!({"file": file, "trigger": "{file}.done"}));
            assert_eq!(config.template().unwrap(), format!("in/{base}"));
            let place = config.place("MARK", |text| Ok(text.to_owned())).unwrap().unwrap();
            let names = place.file.unwrap();
            assert_eq!((names.part(7).as_str(), names.base.as_str()), (first, base));
            assert_eq!(names.is_one(), !file.contains("{part}"));
            assert_eq!(names.manifest(), format!("{base}.manifest.json"));
            assert_eq!(names.trigger, Some(format!("{base}.done")));
            let places = [file, &format!("{base}.manifest.json"), &format!("{base}.done")];
            assert_eq!(config.places(), places.map(|name| format!("in/{name}")));
        }
        assert_eq!(config(serde_json::json!({})).places(), ["in"]);
    }

    #[test]
    fn the_name_tells_what_is_not_said() {
        for (more, kind) in [
            (serde_json::json!({}), (Format::Parquet, Compression::Zstd)),
            (serde_json::json!({"format": "csv"}), (Format::Csv, Compression::None)),
            (serde_json::json!({"file": "x.csv.gz"}), (Format::Csv, Compression::Gzip)),
            (serde_json::json!({"file": "x-{part}.jsonl.zst"}), (Format::Jsonl, Compression::Zstd)),
            (serde_json::json!({"file": "x.avro"}), (Format::Avro, Compression::Zstd)),
            (
                serde_json::json!({"file": "x.txt.gz", "format": "csv"}),
                (Format::Csv, Compression::Gzip),
            ),
            (
                serde_json::json!({"file": "x.parquet", "compression": "none"}),
                (Format::Parquet, Compression::None),
            ),
        ] {
            assert_eq!(config(more).kind(), kind);
        }
    }
}
