package main

import (
	"net"
	"runtime"
	"sync/atomic"
	"time"
)

// queues: far more goroutines that never wait than may run at once, until it is told to stop them.
func queues() {
	runtime.GOMAXPROCS(2)
	var stop int32
	for i := 0; i < 40; i++ {
		go func() {
			for atomic.LoadInt32(&stop) == 0 {
			}
		}()
	}
	grow = func() { atomic.StoreInt32(&stop, 1) }
}

// calls: the same, but they can be made to give way where a function begins.
func calls() {
	runtime.GOMAXPROCS(2)
	var stop int32
	for i := 0; i < 40; i++ {
		go func() {
			for atomic.LoadInt32(&stop) == 0 {
				step(3)
			}
		}()
	}
	grow = func() { atomic.StoreInt32(&stop, 1) }
}

//go:noinline
func step(more int) int {
	if more == 0 {
		return 0
	}
	return step(more-1) + 1
}

type node struct {
	next *node
	room [8]uint64
}

// garbage: collects garbage all the time, until it is told to stop.
func garbage() {
	var stop int32
	var all *node
	for i := 0; i < 1<<20; i++ {
		all = &node{next: all}
	}
	done := make(chan bool)
	call("collector", func() {
		for atomic.LoadInt32(&stop) == 0 {
			runtime.GC()
		}
		runtime.KeepAlive(all)
		done <- true
	})
	grow = func() {
		atomic.StoreInt32(&stop, 1)
		<-done
	}
}

// server: answers on connections from itself as fast as it can, beside many that are silent.
func server() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	var requests int64
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				buffer := make([]byte, 64)
				for {
					if _, err := connection.Read(buffer); err != nil {
						return
					}
					connection.Write(buffer)
				}
			}()
		}
	}()
	never := make(chan bool)
	for i := 0; i < 5000; i++ {
		go func() { <-never }()
	}
	for i := 0; i < 16; i++ {
		go func() {
			connection, err := net.Dial("tcp", listener.Addr().String())
			if err != nil {
				panic(err)
			}
			buffer := make([]byte, 64)
			for {
				connection.Write(buffer)
				connection.Read(buffer)
				atomic.AddInt64(&requests, 1)
			}
		}()
	}
	start := time.Now()
	grow = func() {
		facts["requests"] = atomic.LoadInt64(&requests)
		facts["ns"] = int64(time.Since(start))
	}
}
