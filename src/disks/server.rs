//! The NBD server: one thread for each connection.

use std::io::{self, BufReader, IoSlice, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use super::disk::{Client, Disk, Order, Outcome};
use super::protocol::{self, Command, OptionHead, Request, answer, option};
use super::store::SECTOR;

/// How much is taken from the socket at once where requests are small, in bytes.
const BUFFER: usize = 128 * 1024;
const STACK: usize = 512 * 1024;

/// Serves a disk to the other end of `stream`, on a thread of its own, until that end is closed.
///
/// # Errors
/// No thread can be had.
pub fn serve(disk: Arc<Disk>, stream: UnixStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    let thread = std::thread::Builder::new().name("disk".to_owned()).stack_size(STACK);
    // A connection that ends, however, ends its thread: nobody is there to be told.
    thread.spawn(move || drop(converse(&disk, &stream))).map(drop)
}

fn converse(disk: &Arc<Disk>, stream: &UnixStream) -> io::Result<()> {
    let mut input = BufReader::with_capacity(BUFFER, stream);
    if !negotiate(disk, &mut input, stream)? {
        return Ok(());
    }
    let connection = Connection { disk, client: Client::new(false), output: Arc::new(Mutex::new(stream.try_clone()?)) };
    let result = connection.transmit(&mut input);
    connection.client.alive.store(false, Ordering::SeqCst);
    disk.changed.notify_all();
    result
}

/// The handshake; whether requests follow.
fn negotiate(disk: &Disk, input: &mut impl Read, mut output: impl Write) -> io::Result<bool> {
    output.write_all(protocol::GREETING)?;
    let mut flags = [0; 4];
    input.read_exact(&mut flags)?;
    let zeroes = u32::from_be_bytes(flags) & protocol::NO_ZEROES == 0;
    loop {
        let mut head = [0; OptionHead::BYTES];
        input.read_exact(&mut head)?;
        let Some(OptionHead { option: wanted, length }) = OptionHead::decode(&head) else { return Ok(false) };
        if length > protocol::LARGEST_OPTION {
            io::copy(&mut input.take(u64::from(length)), &mut io::sink())?;
            output.write_all(&protocol::option_reply(wanted, answer::TOO_BIG, b""))?;
            continue;
        }
        let mut data = vec![0; usize::try_from(length).unwrap_or_default()];
        input.read_exact(&mut data)?;
        let info = protocol::export_info(disk.size(), protocol::export_flags(disk.is_readonly()));
        let mut reply = |kind, data: &[u8]| output.write_all(&protocol::option_reply(wanted, kind, data));
        match wanted {
            option::EXPORT_NAME if data != protocol::EXPORT.as_bytes() => return Ok(false),
            option::EXPORT_NAME => {
                output.write_all(&info[2..])?;
                if zeroes {
                    output.write_all(&[0; 124])?;
                }
                return Ok(true);
            }
            option::INFO | option::GO => match protocol::wanted_export(&data) {
                None => reply(answer::INVALID, b"")?,
                Some(name) if name != protocol::EXPORT.as_bytes() => reply(answer::UNKNOWN, b"")?,
                Some(_) => {
                    reply(answer::INFO, &info)?;
                    reply(answer::INFO, &protocol::block_size_info())?;
                    reply(answer::ACK, b"")?;
                    if wanted == option::GO {
                        return Ok(true);
                    }
                }
            },
            option::LIST if data.is_empty() => {
                let mut name = u32::try_from(protocol::EXPORT.len()).unwrap_or_default().to_be_bytes().to_vec();
                name.extend(protocol::EXPORT.as_bytes());
                reply(answer::SERVER, &name)?;
                reply(answer::ACK, b"")?;
            }
            option::LIST => reply(answer::INVALID, b"")?,
            option::ABORT => {
                reply(answer::ACK, b"")?;
                return Ok(false);
            }
            _ => reply(answer::UNSUPPORTED, b"")?,
        }
    }
}

struct Connection<'a> {
    disk: &'a Arc<Disk>,
    client: Client,
    output: Arc<Mutex<UnixStream>>,
}

impl Connection<'_> {
    fn transmit(&self, input: &mut impl Read) -> io::Result<()> {
        loop {
            let mut head = [0; Request::BYTES];
            input.read_exact(&mut head)?;
            // Whoever sends something else has lost count, and there is no way back.
            let Some(request) = Request::decode(&head) else { return Ok(()) };
            let Some(order) = self.order(&request, input)? else {
                if request.command == Command::Disconnect {
                    return Ok(());
                }
                reply(&self.output, request.cookie, Err(libc::EINVAL))?;
                continue;
            };
            let (output, cookie) = (Arc::clone(&self.output), request.cookie);
            // A client that is gone is seen by the next read.
            self.disk.submit(order, &self.client, move |outcome| drop(reply(&output, cookie, outcome)));
        }
    }

    /// What the disk is asked for; none where it makes no sense. The bytes of a write are read in any case.
    fn order(&self, request: &Request, input: &mut impl Read) -> io::Result<Option<Order>> {
        let Request { command, fua, offset, length, .. } = *request;
        let length = u64::from(length);
        let aligned = offset.is_multiple_of(SECTOR) && length.is_multiple_of(SECTOR) && length > 0;
        let (first, count, durable) = (offset / SECTOR, length / SECTOR, fua);
        // Zeroes and trims carry nothing, so that they may be as long as they like.
        let fits = length <= u64::from(protocol::LARGEST);
        if command == Command::Write {
            if !aligned || !fits {
                let skipped = io::copy(&mut input.take(length), &mut io::sink())?;
                return if skipped == length { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
            let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
            input.read_exact(&mut bytes)?;
            return Ok(Some(Order::Write { first, bytes, durable }));
        }
        Ok(match command {
            Command::Read if aligned && fits => Some(Order::Read { first, count }),
            Command::Trim | Command::WriteZeroes if aligned => Some(Order::Zeroes { first, count, durable }),
            Command::Flush => Some(Order::Flush),
            _ => None,
        })
    }
}

fn reply(output: &Mutex<UnixStream>, cookie: u64, outcome: Outcome) -> io::Result<()> {
    let (errno, data) = match outcome {
        Ok(data) => (0, data),
        Err(errno) => (errno, Vec::new()),
    };
    let head = protocol::reply_head(cookie, errno);
    let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
    if data.is_empty() {
        return output.write_all(&head);
    }
    let written = output.write_vectored(&[IoSlice::new(&head), IoSlice::new(&data)])?;
    match written.checked_sub(head.len()) {
        Some(of_data) => output.write_all(&data[of_data..]),
        None => {
            output.write_all(&head[written..])?;
            output.write_all(&data)
        }
    }
}
