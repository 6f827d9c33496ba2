// Goroutines that wait in known ways. Each scene parks its goroutines, prints what it knows of itself, and
// answers to lines on standard input until that ends.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Truth is what the program says of itself.
type Truth struct {
	Goroutines int               `json:"goroutines"`
	Goids      map[string]uint64 `json:"goids"`
	Addrs      map[string]string `json:"addrs"`
	Facts      map[string]int64  `json:"facts"`
	Stacks     string            `json:"stacks"`
}

var (
	known sync.Mutex
	goids = map[string]uint64{}
	addrs = map[string]string{}
	facts = map[string]int64{}
	named = make(chan struct {
		name string
		goid uint64
	})
)

var scenes = map[string]func(){
	"idle":      idle,
	"leak":      leak,
	"abba":      abba,
	"threeway":  threeway,
	"writer":    writer,
	"global":    global,
	"variables": variables,
	"waitgroup": waitgroup,
	"channels":  channels,
	"orphan":    orphan,
	"turns":     turns,
	"busy":      busy,
	"sleep":     sleep,
	"io":        io,
	"labels":    labels,
	"many":      many,
	"churn":     churn,
	"deep":      deep,
	"threads":   threads,
	"again":     again,
	"queues":    queues,
	"calls":     calls,
	"garbage":   garbage,
	"server":    server,
}

// grow is what a scene does when it is told to go on.
var grow = func() {}

func main() {
	scene, ok := scenes[os.Args[1]]
	if !ok {
		fmt.Fprintln(os.Stderr, "no such scene")
		os.Exit(2)
	}
	scene()
	say()
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		switch lines.Text() {
		case "grow":
			grow()
			say()
		case "profile":
			profile()
		default:
			say()
		}
	}
}

// say prints what is true now.
func say() {
	buffer := make([]byte, 1<<20)
	if runtime.NumGoroutine() < 2000 {
		buffer = buffer[:runtime.Stack(buffer, true)]
	} else {
		buffer = nil
	}
	text, _ := json.Marshal(Truth{runtime.NumGoroutine(), goids, addrs, facts, string(buffer)})
	fmt.Printf("%s\n", text)
}

// profile prints how long the program's own look at its goroutines takes, in nanoseconds.
func profile() {
	best := time.Hour
	for i := 0; i < 5; i++ {
		start := time.Now()
		records := make([]runtime.StackRecord, runtime.NumGoroutine()+10)
		runtime.GoroutineProfile(records)
		if took := time.Since(start); took < best {
			best = took
		}
	}
	facts["profile_ns"] = int64(best)
	say()
}

// goid is the number of the goroutine that calls it.
func goid() uint64 {
	buffer := make([]byte, 64)
	buffer = buffer[:runtime.Stack(buffer, false)]
	id, _ := strconv.ParseUint(strings.Fields(string(buffer))[1], 10, 64)
	return id
}

// call starts f as a goroutine whose number is told under a name.
func call(name string, f func()) {
	go func() {
		named <- struct {
			name string
			goid uint64
		}{name, goid()}
		f()
	}()
	one := <-named
	known.Lock()
	goids[one.name] = one.goid
	known.Unlock()
}

// fact tells something of a goroutine that is not the main one.
func fact(name string, value int64) {
	known.Lock()
	facts[name] = value
	known.Unlock()
}

// has is whether it was told.
func has(name string) bool {
	known.Lock()
	defer known.Unlock()
	_, ok := facts[name]
	return ok
}

// parked waits until so many goroutines beside the main one wait for this reason.
func parked(count int, reasons ...string) {
	buffer := make([]byte, 4<<20)
	for {
		text := string(buffer[:runtime.Stack(buffer, true)])
		found := 0
		for _, reason := range reasons {
			found += strings.Count(text, " ["+reason+"]:") + strings.Count(text, " ["+reason+",")
		}
		if found >= count {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// waits returns when the goroutine of this name waits for one of these reasons.
func waits(name string, reasons ...string) {
	buffer := make([]byte, 1<<16)
	known.Lock()
	begin := fmt.Sprintf("goroutine %d [", goids[name])
	known.Unlock()
	for {
		text := string(buffer[:runtime.Stack(buffer, true)])
		_, text, _ = strings.Cut(text, begin)
		for _, reason := range reasons {
			if strings.HasPrefix(text, reason) {
				return
			}
		}
		time.Sleep(time.Millisecond)
	}
}

func addr(name string, pointer interface{}) {
	addrs[name] = fmt.Sprintf("%p", pointer)
}
