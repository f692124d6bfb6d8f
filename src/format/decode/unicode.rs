//! Text of any encoding as text in UTF-8, piece by piece.

use std::io::{BufRead, BufReader, Read};

use crate::format::charset::{Charset, Unpacker};

/// A text in UTF-8, whatever its encoding is.
pub(super) enum Unicode<R> {
    Already(R),
    Unpacked(BufReader<Unpacking<R>>),
}

/// A text on its way into UTF-8.
pub(super) struct Unpacking<R> {
    input: R,
    unpacker: Unpacker,
    ready: Vec<u8>,
    at: usize,
    ended: bool,
}

impl<R: BufRead> Unicode<R> {
    pub fn new(input: R, charset: &Charset) -> Unicode<R> {
        if charset.is_utf8() {
            return Unicode::Already(input);
        }
        Unicode::Unpacked(BufReader::new(Unpacking {
            input,
            unpacker: charset.reader(),
            ready: Vec::new(),
            at: 0,
            ended: false,
        }))
    }
}

impl<R: BufRead> Read for Unpacking<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.at == self.ready.len() && !self.ended {
            self.ready.clear();
            self.at = 0;
            let bytes = self.input.fill_buf()?;
            let count = bytes.len();
            self.ended = count == 0;
            self.unpacker.push(bytes, self.ended, &mut self.ready);
            self.input.consume(count);
        }
        let count = self.ready.get(self.at..).unwrap_or_default().read(buffer)?;
        self.at += count;
        Ok(count)
    }
}

impl<R: BufRead> Read for Unicode<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Unicode::Already(input) => input.read(buffer),
            Unicode::Unpacked(input) => input.read(buffer),
        }
    }
}

impl<R: BufRead> BufRead for Unicode<R> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        match self {
            Unicode::Already(input) => input.fill_buf(),
            Unicode::Unpacked(input) => input.fill_buf(),
        }
    }
    fn consume(&mut self, amount: usize) {
        match self {
            Unicode::Already(input) => input.consume(amount),
            Unicode::Unpacked(input) => input.consume(amount),
        }
    }
}
