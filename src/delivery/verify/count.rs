//! How many rows a file has, told from its bytes.

use std::io::{BufRead, Read, Write};

use bytes::{Buf, Bytes};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use parquet::file::metadata::ParquetMetaDataReader;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::DOING;
use crate::connect::files::{Store, classify};
use crate::error::{Error, Result};
use crate::format::charset::{Charset, Unpacker};
use crate::format::decode::avro::AvroFile;
use crate::format::decode::ipc::IpcFile;
use crate::format::{Compression, CsvOptions, Format};

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
    /// Arrow and Avro are read row by row, beside the hash.
    Rows(mpsc::Sender<Bytes>, JoinHandle<Result<u64>>),
    Broken,
}

impl Counter {
    /// For a file of this format and compression, the first column of which is called `header`.
    /// `csv` is the dialect, where it is known.
    pub fn of(
        kind: Option<(Format, Compression)>,
        header: Option<&str>,
        csv: Option<&CsvOptions>,
    ) -> Result<Counter> {
        match kind {
            Some((Format::Csv, compression)) => {
                Counter::new(compression, Records::csv(header, csv))
            }
            Some((Format::Arrow, _)) => Ok(Counter::rows(|input| {
                let mut file = IpcFile::open(input)?;
                count(|| Ok(file.next_batch()?.map(|batch| batch.read)))
            })),
            Some((Format::Avro, _)) => Ok(Counter::rows(|input| {
                let mut file = AvroFile::open(input)?;
                count(|| Ok(file.next_batch()?.map(|batch| batch.read)))
            })),
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

    fn rows(read: impl FnOnce(Pieces) -> Result<u64> + Send + 'static) -> Counter {
        let (sender, pieces) = mpsc::channel(1);
        let pieces = Pieces { pieces, piece: Bytes::new() };
        Counter::Rows(sender, tokio::task::spawn_blocking(move || read(pieces)))
    }

    /// Takes the next bytes of the file.
    pub async fn take(&mut self, bytes: &Bytes) {
        let fine = match self {
            Counter::Rows(sender, _) => {
                // A reader that ended early tells why, or what it counted.
                let _ = sender.send(bytes.clone()).await;
                return;
            }
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
    pub async fn finish(self) -> Count {
        let records = match self {
            Counter::Rows(sender, reading) => {
                drop(sender);
                return match reading.await {
                    Ok(Ok(rows)) => Count::Rows(rows),
                    _ => Count::Unreadable,
                };
            }
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

fn count(mut next: impl FnMut() -> Result<Option<u64>>) -> Result<u64> {
    let mut rows = 0;
    while let Some(more) = next()? {
        rows += more;
    }
    Ok(rows)
}

/// A file's bytes as they come, for a blocking reader.
struct Pieces {
    pieces: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl BufRead for Pieces {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => break,
            }
        }
        Ok(&self.piece)
    }
    fn consume(&mut self, amount: usize) {
        self.piece.advance(amount.min(self.piece.len()));
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

/// Counts line breaks; in CSV, those outside of quotes.
pub struct Records {
    quotes: bool,
    quoted: bool,
    open: bool,
    count: u64,
    /// Whether the first record is a header, where that is known.
    headed: Option<bool>,
    /// What a header begins with: the first column's name.
    header: Vec<u8>,
    /// The first bytes, up to the length that telling a header takes.
    start: Vec<u8>,
    /// From the file's encoding to UTF-8, where it is another.
    unpacker: Option<Unpacker>,
}

impl Records {
    fn lines() -> Records {
        Records {
            quotes: false,
            quoted: false,
            open: false,
            count: 0,
            headed: None,
            header: Vec::new(),
            start: Vec::new(),
            unpacker: None,
        }
    }

    fn csv(header: Option<&str>, csv: Option<&CsvOptions>) -> Records {
        // As it is written between quotes, where it needs them.
        let header = header.unwrap_or_default().replace('"', "\"\"").into_bytes();
        let charset = csv.and_then(|csv| Charset::named(&csv.encoding).ok());
        let unpacker = charset.filter(|charset| !charset.is_utf8()).map(|charset| charset.reader());
        let headed = csv.map(|csv| csv.header);
        Records { quotes: true, header, headed, unpacker, ..Records::lines() }
    }

    fn count(&self) -> Count {
        let records = self.count + u64::from(self.open);
        let start = self.start.strip_prefix(b"\"").unwrap_or(&self.start);
        match self.headed {
            Some(true) => Count::Rows(records.saturating_sub(1)),
            Some(false) => Count::Rows(records),
            None if self.quotes && start.starts_with(&self.header) => Count::Headed(records),
            None => Count::Rows(records),
        }
    }

    fn scan(&mut self, bytes: &[u8]) {
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
    }
}

impl Write for Records {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self.unpacker.take() {
            None => self.scan(bytes),
            Some(mut unpacker) => {
                let mut text = Vec::new();
                unpacker.push(bytes, false, &mut text);
                self.scan(&text);
                self.unpacker = Some(unpacker);
            }
        }
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
