package main

import (
	"sync"
	"time"
)

// The reasons that releases of Go have for a goroutine that waits for a lock.
var mutexReasons = []string{"semacquire", "sync.Mutex.Lock"}

// turns: one who receives and one who takes a lock, each made to wait a known number of times by the main goroutine.
func turns() {
	numbers, gate := make(chan int), make(chan bool)
	var lock sync.Mutex
	addr("numbers", numbers)
	call("receiver", func() {
		for range numbers {
		}
	})
	call("locker", func() {
		for range gate {
			lock.Lock()
			lock.Unlock()
		}
	})
	waits("locker", "chan receive")
	waits("receiver", "chan receive")
	grow = func() {
		for i := 0; i < 20; i++ {
			numbers <- i
			waits("receiver", "chan receive")
			lock.Lock()
			gate <- true
			waits("locker", mutexReasons...)
			lock.Unlock()
			waits("locker", "chan receive")
		}
		facts["turns"] += 20
	}
}

type account struct {
	name    string
	balance int
	mu      sync.Mutex
}

func lockBoth(first, second *account, ready, start chan bool) {
	first.mu.Lock()
	defer first.mu.Unlock()
	ready <- true
	<-start
	second.mu.Lock()
	second.balance += first.balance
	second.mu.Unlock()
}

func ring(count int) {
	accounts := make([]*account, count)
	for i := range accounts {
		accounts[i] = &account{name: string(rune('a' + i))}
		addr(accounts[i].name, &accounts[i].mu)
	}
	ready, start := make(chan bool), make(chan bool)
	for i := range accounts {
		first, second := accounts[i], accounts[(i+1)%count]
		call(first.name, func() { lockBoth(first, second, ready, start) })
		<-ready
	}
	close(start)
	parked(count, mutexReasons...)
}

func abba()     { ring(2) }
func threeway() { ring(3) }

var one, other sync.Mutex

func lockOne(ready, start chan bool) {
	one.Lock()
	ready <- true
	<-start
	other.Lock()
	one.Unlock()
}

func lockOther(ready, start chan bool) {
	other.Lock()
	defer other.Unlock()
	ready <- true
	<-start
	one.Lock()
	one.Unlock()
}

// passed has had both locks, and will have them again.
func passed(ready, never chan bool) {
	one.Lock()
	other.Lock()
	other.Unlock()
	one.Unlock()
	ready <- true
	<-never
	other.Lock()
	one.Lock()
	one.Unlock()
	other.Unlock()
}

// global: a deadlock of locks that are variables of the program, and bystanders that use both.
func global() {
	addr("one", &one)
	addr("other", &other)
	ready, start, never := make(chan bool), make(chan bool), make(chan bool)
	for _, name := range []string{"passed1", "passed2"} {
		call(name, func() { passed(ready, never) })
		<-ready
	}
	call("one", func() { lockOne(ready, start) })
	<-ready
	call("other", func() { lockOther(ready, start) })
	<-ready
	close(start)
	parked(2, mutexReasons...)
}

var (
	table   sync.RWMutex
	allDone sync.WaitGroup
	first   = account{name: "first"}
	second  = account{name: "second"}
)

func readTable(ready, never chan bool) {
	table.RLock()
	ready <- true
	<-never
	table.RUnlock()
}

func writeTable() {
	table.Lock()
	table.Unlock()
}

func finish(ready, never chan bool) {
	ready <- true
	<-never
	allDone.Done()
}

// variables: locks of each kind that are variables, and two that are handed over by their addresses.
func variables() {
	addr("table", &table)
	addr("allDone", &allDone)
	addr("first", &first.mu)
	addr("second", &second.mu)
	ready, start, never := make(chan bool), make(chan bool), make(chan bool)
	call("reader", func() { readTable(ready, never) })
	<-ready
	call("writer", writeTable)
	allDone.Add(1)
	call("finish", func() { finish(ready, never) })
	<-ready
	call("waiter", func() { allDone.Wait() })
	call("first", func() { lockBoth(&first, &second, ready, start) })
	<-ready
	call("second", func() { lockBoth(&second, &first, ready, start) })
	<-ready
	close(start)
	parked(4, append(mutexReasons, "sync.RWMutex.Lock", "sync.WaitGroup.Wait")...)
}

func readForever(lock *sync.RWMutex, ready, never chan bool) {
	lock.RLock()
	defer lock.RUnlock()
	ready <- true
	<-never
}

// writer: one that never gets its turn, and readers behind it.
func writer() {
	lock := &sync.RWMutex{}
	addr("lock", lock)
	ready, never := make(chan bool), make(chan bool)
	for _, name := range []string{"reader1", "reader2"} {
		call(name, func() { readForever(lock, ready, never) })
		<-ready
	}
	call("writer", func() { lock.Lock() })
	parked(1, "semacquire", "sync.RWMutex.Lock")
	call("late", func() { lock.RLock() })
	parked(2, "semacquire", "sync.RWMutex.Lock", "sync.RWMutex.RLock")
	call("second", func() { lock.Lock() })
	parked(3, "semacquire", "sync.RWMutex.Lock", "sync.RWMutex.RLock", "sync.Mutex.Lock")
}

// waitgroup: two of three are done, the third sleeps.
func waitgroup() {
	group := &sync.WaitGroup{}
	addr("group", group)
	group.Add(3)
	call("waiter", func() { group.Wait() })
	group.Done()
	group.Done()
	call("missing", func() {
		time.Sleep(time.Hour)
		group.Done()
	})
	parked(1, "semacquire", "sync.WaitGroup.Wait")
	parked(1, "sleep")
}
