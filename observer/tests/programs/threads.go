// Goroutines that sleep, so that the runtime's threads have nothing to do.
package main

import (
	"runtime"
	"sync"
	"time"
)

func main() {
	// Each system call that lasts takes a thread of its own, which is idle afterwards.
	var all sync.WaitGroup
	for i := 0; i < 8; i++ {
		all.Add(1)
		go func() {
			runtime.LockOSThread()
			time.Sleep(50 * time.Millisecond)
			runtime.UnlockOSThread()
			all.Done()
		}()
	}
	all.Wait()
	time.Sleep(time.Hour)
}
