// Runs programs as Go does: vfork(2) with the memory of a goroutine.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
)

func main() {
	place := os.Args[1]
	for _, name := range []string{"tool", "script", "remote", "lost", "broken", "none", "data"} {
		out, err := exec.Command(place+"/"+name, "one", "two").CombinedOutput()
		fmt.Printf("%s %v %q\n", name, err, out)
	}
	var wait sync.WaitGroup
	for n := 0; n < 20; n++ {
		wait.Add(1)
		go func() {
			defer wait.Done()
			if out, err := exec.Command(place+"/tool").Output(); err == nil || len(out) == 0 {
				fmt.Println(err, out)
			}
		}()
	}
	wait.Wait()
	fmt.Println(syscall.Exec(place+"/none", nil, nil))
	fmt.Println(syscall.Exec(place+"/tool", []string{"in its place"}, []string{"A=b"}))
}
