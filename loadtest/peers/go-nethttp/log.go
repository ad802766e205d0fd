package main

import (
	"log"
	"os"
	"sync"
	"syscall"
)

// rawLog appends records to a file. Without sync each is one write; with it, what waits while the disk is busy is
// written and synced together.
type rawLog struct {
	file *os.File
	sync bool
	in   chan record
}

type record struct {
	data []byte
	done chan error
}

var doneChans = sync.Pool{New: func() any { return make(chan error, 1) }}

func openLog(path string, sync bool) *rawLog {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		log.Fatal(err)
	}
	l := &rawLog{file: f, sync: sync, in: make(chan record, 4096)}
	if sync {
		go l.run()
	}
	return l
}

func (l *rawLog) append(data []byte) error {
	if !l.sync {
		_, err := l.file.Write(data)
		return err
	}
	done := doneChans.Get().(chan error)
	l.in <- record{data, done}
	err := <-done
	doneChans.Put(done)
	return err
}

func (l *rawLog) run() {
	var buf []byte
	var waiting []chan error
	for r := range l.in {
		buf, waiting = append(buf[:0], r.data...), append(waiting[:0], r.done)
	gather:
		for len(waiting) < 1024 && len(buf) < 8<<20 {
			select {
			case more := <-l.in:
				buf, waiting = append(buf, more.data...), append(waiting, more.done)
			default:
				break gather
			}
		}
		_, err := l.file.Write(buf)
		if err == nil {
			err = syscall.Fdatasync(int(l.file.Fd()))
		}
		for _, w := range waiting {
			w <- err
		}
	}
}
