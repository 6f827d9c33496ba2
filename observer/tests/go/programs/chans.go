package main

import (
	"context"
	"net"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"syscall"
	"time"
)

func leakOne() {
	result := make(chan int)
	go func() {
		// Nobody receives.
		result <- 1
	}()
}

// leak: ten at first, ten more each time.
func leak() {
	grow = func() {
		before := runtime.NumGoroutine()
		for i := 0; i < 10; i++ {
			leakOne()
		}
		for runtime.NumGoroutine() != before+10 {
			runtime.Gosched()
		}
		parked(before+10-1, "chan send")
	}
	grow()
}

func send(out chan<- int) { out <- 1 }

// channels: each operation once.
func channels() {
	full, empty, closed := make(chan int, 3), make(chan [2]int64), make(chan bool, 1)
	full <- 1
	full <- 2
	full <- 3
	addr("full", full)
	addr("empty", empty)
	addr("closed", closed)
	call("sender", func() { send(full) })
	call("sender2", func() { send(full) })
	call("receiver", func() { <-empty })
	call("select", func() {
		select {
		case <-empty:
		case full <- 4:
		case <-closed:
		}
	})
	call("nil", func() { var never chan int; <-never })
	call("forever", func() { select {} })
	parked(2, "chan send")
	parked(1, "chan receive")
	parked(1, "select")
	parked(1, "chan receive (nil chan)")
	parked(1, "select (no cases)")
}

// abandon: one alone, two who wait for each other's other, and one who waits behind a lost one.
//
//go:noinline
func abandon() {
	lost := make(chan int)
	addr("lost", lost)
	call("lost", func() { lost <- 1 })
	one, two := make(chan int), make(chan *int)
	addr("pair1", one)
	addr("pair2", two)
	call("pair1", func() { <-one; two <- nil })
	call("pair2", func() { <-two; one <- 1 })
	behind := make(chan *int)
	addr("behind", behind)
	call("holds", func() { <-one; close(behind) })
	call("behind", func() { <-behind })
}

type owner struct {
	name string
	in   chan *int
}

// reached: those that somebody comes back to.
//
//go:noinline
func reached() {
	timed := make(chan *int)
	addr("timed", timed)
	time.AfterFunc(time.Hour, func() { close(timed) })
	call("timed", func() { <-timed })
	final := make(chan *int)
	addr("final", final)
	call("final", func() { <-final })
	finalized(final)
	chained, asleep := make(chan *int), make(chan *int)
	addr("chained", chained)
	addr("asleep", asleep)
	call("asleep", func() { time.Sleep(time.Hour); close(asleep) })
	call("chained2", func() { <-asleep; chained <- nil })
	call("chained", func() { <-chained })
}

//go:noinline
func finalized(in chan *int) {
	runtime.SetFinalizer(&owner{"x", in}, func(one *owner) { close(one.in) })
}

// overwrite uses the stack that abandon used, so that nothing of it stays by chance.
//
//go:noinline
func overwrite(depth int) int {
	var room [64]int
	for i := range room {
		room[i] = depth + i
	}
	if depth == 0 {
		return room[7]
	}
	return overwrite(depth-1) + room[depth%64]
}

// kept is where somebody else could take a channel from.
var kept struct{ in map[string]chan int }

// orphan: channels that nobody else has, and some that somebody could still take.
func orphan() {
	// The finalizer is not to run meanwhile, and garbage is to stay.
	debug.SetGCPercent(-1)
	abandon()
	reached()
	kept.in = map[string]chan int{"kept": make(chan int)}
	addr("kept", kept.in["kept"])
	mine := kept.in["kept"]
	call("kept", func() { <-mine })
	mine = nil
	facts["overwritten"] = int64(overwrite(50))
	parked(1, "chan send")
	parked(8, "chan receive")
	parked(1, "sleep")
}

// busy: a channel that nobody else has, while somebody computes.
func busy() {
	abandon()
	call("busy", func() {
		for {
		}
	})
	parked(1, "chan send")
}

// idle: a server as there are many, and nothing wrong with it.
func idle() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	call("accept", func() {
		for {
			listener.Accept()
		}
	})
	jobs := make(chan int)
	for i := 0; i < 4; i++ {
		go func() {
			for range jobs {
			}
		}()
	}
	call("feeder", func() {
		for range time.Tick(20 * time.Millisecond) {
			jobs <- 1
		}
	})
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	call("signals", func() { <-signals })
	ctx, cancel := context.WithCancel(context.Background())
	grow = cancel
	call("context", func() { <-ctx.Done() })
	parked(1, "IO wait")
	parked(5, "chan receive")
}

// sleep: until a moment.
func sleep() {
	call("hour", func() { time.Sleep(time.Hour) })
	call("timer", func() { <-time.After(time.Hour) })
	parked(1, "sleep")
	parked(1, "chan receive")
}

var peer net.Conn

// io: who waits for which descriptor.
func io() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	client, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		panic(err)
	}
	server, err := listener.Accept()
	if err != nil {
		panic(err)
	}
	fd("listener", listener.(*net.TCPListener))
	fd("client", client.(*net.TCPConn))
	fd("server", server.(*net.TCPConn))
	call("accept", func() { listener.Accept() })
	call("read", func() { client.Read(make([]byte, 8)) })
	call("write", func() {
		for {
			client.Write(make([]byte, 1<<16))
		}
	})
	parked(3, "IO wait")
	// One that nobody has any more is closed.
	peer = server
}

func fd(name string, of syscall.Conn) {
	raw, _ := of.SyscallConn()
	raw.Control(func(fd uintptr) { facts[name] = int64(fd) })
}

// labels: as programs that are profiled set them.
func labels() {
	never := make(chan bool)
	set := pprof.Labels("request", "42", "path", "/a/b")
	call("labelled", func() {
		pprof.Do(context.Background(), set, func(context.Context) {
			call2("child", func() { <-never })
			<-never
		})
	})
	parked(2, "chan receive")
}

// call2 is call for a goroutine that starts another.
func call2(name string, f func()) {
	id := make(chan uint64)
	go func() {
		id <- goid()
		f()
	}()
	known.Lock()
	goids[name] = <-id
	known.Unlock()
}

// many: as many as the second argument says.
func many() {
	count := 0
	for _, digit := range os.Args[2] {
		count = count*10 + int(digit-'0')
	}
	never := make(chan bool)
	for i := 0; i < count; i++ {
		go func() { <-never }()
	}
	for i := 0; i < 1000; i++ {
		runtime.Gosched()
	}
	time.Sleep(100 * time.Millisecond)
}

// churn: goroutines that come and go all the time, beside some that stay.
func churn() {
	never := make(chan bool)
	for i := 0; i < 500; i++ {
		go func() { <-never }()
	}
	for i := 0; i < 4; i++ {
		go func() {
			for {
				done := make(chan bool)
				for i := 0; i < 50; i++ {
					go func() { time.Sleep(time.Millisecond); done <- true }()
				}
				for i := 0; i < 50; i++ {
					<-done
				}
			}
		}()
	}
	time.Sleep(50 * time.Millisecond)
}

//go:noinline
func recurse(depth int, never chan bool) int {
	if depth == 0 {
		<-never
		return 0
	}
	return recurse(depth-1, never) + 1
}

// deep: stacks of 50, of 1 000 calls, and of one call inlined into another.
func deep() {
	never := make(chan bool)
	call("fifty", func() { recurse(50, never) })
	call("thousand", func() { recurse(1000, never) })
	call("inlined", func() { outer(never) })
	parked(3, "chan receive")
}

func outer(never chan bool) { middle(never) }

func middle(never chan bool) { inner(never) }

func inner(never chan bool) { <-never }

// threads: one that computes, one in a system call, one that is bound to its thread.
func threads() {
	call("busy", func() {
		fact("busy_tid", int64(syscall.Gettid()))
		for {
		}
	})
	call("syscall", func() {
		runtime.LockOSThread()
		fact("syscall_tid", int64(syscall.Gettid()))
		var pipe [2]int
		syscall.Pipe(pipe[:])
		syscall.Read(pipe[0], make([]byte, 1))
	})
	for !has("busy_tid") {
		time.Sleep(time.Millisecond)
	}
	waits("syscall", "syscall")
}

// again: becomes the same program, from its beginning.
func again() {
	grow = func() { syscall.Exec("/proc/self/exe", os.Args, os.Environ()) }
}
