//! Readers beside a writer, and where segments are missing.

use super::super::buffer::AlignedBuf;
use super::super::frame::FrameKind;
use super::super::record;
use super::*;

/// A frame with one entry.
fn frame_of(number: u64, body: &[u8]) -> Vec<u8> {
    finished(FrameKind::Commit, number, body)
}

fn finished(kind: FrameKind, number: u64, body: &[u8]) -> Vec<u8> {
    let mut buf = AlignedBuf::with_capacity(0);
    buf.set_len(HEADER);
    record::write_entry(&mut buf, number, 1, |_| (), body);
    let header = FrameHeader {
        kind,
        salt: [1; 16],
        number,
        first_lsn: number,
        records: 1,
        payload: 0,
        padded: 0,
        payload_crc: 0,
        durable_upto: number,
        previous: [0; 16],
        written_at: 0,
    };
    frame::finish(&mut buf, header);
    buf.as_slice().to_vec()
}

fn view(dir: &std::path::Path) -> JournalView {
    JournalView {
        id: [1; 16],
        dir: dir.to_owned(),
        mode: OpenMode::Buffered,
        spans: Arc::default(),
        end: Position::default(),
        clean: true,
        settled: Arc::default(),
        published: None,
        archived: Arc::new(super::super::view::Archived::never_asked()),
        segments: Arc::default(),
    }
}

#[test]
fn a_frame_read_ahead_while_it_was_being_written_is_read_again_once_it_is_durable() {
    use std::os::unix::fs::FileExt;

    let folder = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(segment_path(folder.path(), 1)).unwrap();
    file.set_len(64 * BLOCK as u64).unwrap();
    let (first, second) = (frame_of(1, b"first"), frame_of(2, &[b'2'; 3 * BLOCK]));
    file.write_all_at(&first, FIRST_FRAME).unwrap();
    let at = FIRST_FRAME + first.len() as u64;
    // Its first block is on disk, the others are on their way.
    file.write_all_at(&second[..BLOCK], at).unwrap();
    let mut runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().enable_timer().build().unwrap();
    runtime.block_on(async {
        let pool = BufferPool::new(1, Arc::default());
        let mut reader = JournalReader::new(&view(folder.path()), pool);
        let (start, middle) = (Position::new(1, FIRST_FRAME), Position::new(1, at));
        let frame = reader.frame(start, middle).await.unwrap().unwrap();
        assert_eq!((frame.position, frame.next), (start, middle));
        file.write_all_at(&second, at).unwrap();
        let end = Position::new(1, at + second.len() as u64);
        let frame = reader.frame(middle, end).await.unwrap().unwrap();
        assert_eq!((frame.position, frame.next), (middle, end));
        assert!(reader.frame(end, end).await.unwrap().is_none());
    });
}

/// Segments in memory.
struct Held(Vec<(u64, Vec<u8>)>);

impl Blocks for Held {
    fn exists(&self, segment: u64) -> bool {
        self.0.iter().any(|(number, _)| *number == segment)
    }

    async fn read(&self, segment: u64, at: u64, len: usize) -> io::Result<Bytes> {
        let held = self.0.iter().find(|(number, _)| *number == segment);
        let bytes = &held.ok_or(io::ErrorKind::NotFound)?.1[at as usize..];
        Ok(Bytes::copy_from_slice(&bytes[..len.min(bytes.len())]))
    }

    async fn list(&self, _segment: u64) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

#[test]
fn a_segment_that_the_floor_names_and_that_never_was_is_stepped_over() {
    use futures_util::FutureExt as _;

    use super::super::floor::Floor;
    use super::super::segments::Segments;

    // All went up to segment 1; 2 was torn while it was taken into use, so 3 follows.
    let mut segment = AlignedBuf::with_capacity(0);
    let header = SegmentHeader {
        journal: [1; 16],
        salt: [1; 16],
        number: 3,
        base_lsn: 7,
        first_frame: 7,
        previous: [0; 16],
        previous_segment: 1,
        previous_end: 0,
        created_at: 0,
    };
    header.encode(&mut segment);
    segment.extend_from_slice(&frame_of(7, b"first"));
    let end = Position::new(3, segment.len() as u64);
    let floor = Floor { journal: [1; 16], first: 2, base_lsn: 7, first_frame: 7, kept: Vec::new() };
    let mut view = view(std::path::Path::new("/"));
    view.segments = Arc::new(Segments::new(floor));
    let span = Span { segment: 3, end: end.offset(), holes: Vec::new(), lsns: 7..8, parcels: 1, thin: false };
    for (spans, upto) in [(Vec::new(), end), (vec![span], end)] {
        view.spans = Arc::new(spans);
        let mut reader = JournalReader::over(&view, Held(vec![(3, segment.as_slice().to_vec())]));
        let frame = reader.frame(Position::default(), upto).now_or_never().unwrap().unwrap().unwrap();
        assert_eq!((frame.position, frame.next), (Position::new(3, FIRST_FRAME), end));
    }
}

/// A segment whose header follows segment `previous`.
fn segment(number: u64, previous: u64, first: u64) -> Vec<u8> {
    let mut segment = AlignedBuf::with_capacity(0);
    let header = SegmentHeader {
        journal: [1; 16],
        salt: [1; 16],
        number,
        base_lsn: first,
        first_frame: first,
        previous: [0; 16],
        previous_segment: previous,
        previous_end: 0,
        created_at: 0,
    };
    header.encode(&mut segment);
    segment.as_slice().to_vec()
}

#[test]
fn what_users_sent_in_an_earlier_use_of_a_file_ends_no_reading() {
    use futures_util::FutureExt as _;

    let mut second = segment(2, 1, 3);
    second.extend_from_slice(&frame_of(3, b"behind"));
    let end = Position::new(2, second.len() as u64);
    let magic: &[u8] = &frame_of(1, b"")[..4];
    let text = magic.iter().copied().cycle().take(70 * BLOCK).collect::<Vec<u8>>();
    // Of an own frame only the salt shows that it is one.
    let mut own = frame_of(5, b"own");
    own[24] ^= 1;
    for (left, damaged) in
        [(text.clone(), false), ([&text[..64 * BLOCK], &frame_of(5, b"own")].concat(), true), (own, true)]
    {
        let mut first = segment(1, 0, 1);
        first.extend_from_slice(&frame_of(1, b"before"));
        first.extend_from_slice(&finished(FrameKind::Seal, 2, b""));
        let sealed = Position::new(1, first.len() as u64);
        first.extend_from_slice(&left);
        let files = Held(vec![(1, first), (2, second.clone())]);
        let mut reader = JournalReader::over(&view(std::path::Path::new("/")), files);
        let read = reader.frame(sealed, end).now_or_never().unwrap();
        match read {
            Ok(frame) => assert!(!damaged && frame.unwrap().position == Position::new(2, FIRST_FRAME)),
            Err(error) => {
                assert!(damaged && matches!(error, ReadError::Damaged { segment: 1, .. }), "{error}")
            }
        }
    }
}
