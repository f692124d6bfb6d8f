//! How many rows a file has, told from its bytes.

use std::io::Write;

use object_store::ObjectStoreExt;
use object_store::path::Path;
use parquet::file::metadata::ParquetMetaDataReader;

use super::DOING;
use crate::connect::files::{Store, classify};
use crate::error::{Error, Result};
use crate::format::{Compression, Format};

/// How long the description at the end of a Parquet file may be.
const FOOTER_LIMIT: u64 = 256 << 20;

/// The rows of a file, as far as its bytes tell.
pub enum Count {
    Rows(u64),
    /// Lines of CSV, the first of which begins as a header does, or as a value like it.
    Headed(u64),
    Unreadable,
    /// The name does not tell the format.
    Unknown,
}

/// The rows that a Parquet file says it has, from the description at its end: its length is in
/// the four bytes before the last four, which are `PAR1`.
pub async fn parquet_rows(store: &Store, path: &Path, size: u64) -> Result<Count> {
    if size < 12 {
        return Ok(Count::Unreadable);
    }
    let tail = store.objects.get_range(path, size - 8..size).await;
    let tail = tail.map_err(|e| classify(DOING, e))?;
    let [a, b, c, d, b'P', b'A', b'R', b'1'] = tail[..] else { return Ok(Count::Unreadable) };
    let length = u64::from(u32::from_le_bytes([a, b, c, d]));
    if length > FOOTER_LIMIT || length > size - 8 {
        return Ok(Count::Unreadable);
    }
    let footer = store.objects.get_range(path, size - 8 - length..size - 8).await;
    let footer = footer.map_err(|e| classify(DOING, e))?;
    let rows = ParquetMetaDataReader::decode_metadata(&footer)
        .ok()
        .and_then(|metadata| u64::try_from(metadata.file_metadata().num_rows()).ok());
    Ok(rows.map_or(Count::Unreadable, Count::Rows))
}

/// Counts the records of lines, compressed or not, as their bytes pass.
pub enum Counter {
    Off,
    Plain(Records),
    Gzip(flate2::write::MultiGzDecoder<Records>),
    Zstd(Box<zstd::stream::write::Decoder<'static, Records>>),
    Broken,
}

impl Counter {
    /// For a file of this format and compression, the first column of which is called `header`.
    pub fn of(kind: Option<(Format, Compression)>, header: Option<&str>) -> Result<Counter> {
        match kind {
            Some((Format::Csv, compression)) => Counter::new(compression, Records::csv(header)),
            Some((Format::Jsonl, compression)) => Counter::new(compression, Records::lines()),
            Some((Format::Parquet, _)) | None => Ok(Counter::Off),
        }
    }

    fn new(compression: Compression, records: Records) -> Result<Counter> {
        Ok(match compression {
            Compression::None => Counter::Plain(records),
            Compression::Gzip => Counter::Gzip(flate2::write::MultiGzDecoder::new(records)),
            Compression::Zstd => {
                let decoder = zstd::stream::write::Decoder::new(records).map_err(|cause| {
                    Error::transient(DOING, "the decompressor failed").caused_by(cause)
                })?;
                Counter::Zstd(Box::new(decoder))
            }
        })
    }

    /// Takes the next bytes of the file.
    pub fn take(&mut self, bytes: &[u8]) {
        let fine = match self {
            Counter::Off | Counter::Broken => return,
            Counter::Plain(records) => records.write_all(bytes),
            Counter::Gzip(gzip) => gzip.write_all(bytes),
            Counter::Zstd(zstd) => zstd.write_all(bytes),
        };
        if fine.is_err() {
            *self = Counter::Broken;
        }
    }

    /// What there were, once all bytes have passed.
    pub fn finish(self) -> Count {
        let records = match self {
            Counter::Off => return Count::Unknown,
            Counter::Broken => return Count::Unreadable,
            Counter::Plain(records) => records,
            Counter::Gzip(gzip) => match gzip.finish() {
                Ok(records) => records,
                Err(_) => return Count::Unreadable,
            },
            Counter::Zstd(mut zstd) => {
                if zstd.flush().is_err() {
                    return Count::Unreadable;
                }
                zstd.into_inner()
            }
        };
        records.count()
    }
}

/// Counts line breaks; in CSV, those outside of quotes.
pub struct Records {
    quotes: bool,
    quoted: bool,
    open: bool,
    count: u64,
    /// What a header begins with: the first column's name.
    header: Vec<u8>,
    /// The first bytes, up to the length that telling a header takes.
    start: Vec<u8>,
}

impl Records {
    fn lines() -> Records {
        let (header, start) = (Vec::new(), Vec::new());
        Records { quotes: false, quoted: false, open: false, count: 0, header, start }
    }

    fn csv(header: Option<&str>) -> Records {
        // As it is written between quotes, where it needs them.
        let header = header.unwrap_or_default().replace('"', "\"\"").into_bytes();
        Records { quotes: true, header, ..Records::lines() }
    }

    fn count(&self) -> Count {
        let records = self.count + u64::from(self.open);
        let start = self.start.strip_prefix(b"\"").unwrap_or(&self.start);
        if self.quotes && start.starts_with(&self.header) {
            Count::Headed(records)
        } else {
            Count::Rows(records)
        }
    }
}

impl Write for Records {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let wanted = (self.header.len() + 1).saturating_sub(self.start.len());
        self.start.extend_from_slice(&bytes[..wanted.min(bytes.len())]);
        for byte in bytes {
            match byte {
                b'"' if self.quotes => self.quoted = !self.quoted,
                b'\n' if !self.quoted => {
                    self.count += 1;
                    self.open = false;
                    continue;
                }
                _ => {}
            }
            self.open = true;
        }
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
