// Watches folders with fsnotify and prints what it hears, until the name "last".
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/fsnotify/fsnotify"
)

func main() {
	watcher, err := fsnotify.NewWatcher()
	for _, folder := range os.Args[1:] {
		if err == nil {
			err = watcher.Add(folder)
		}
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("ready")
	for {
		select {
		case event := <-watcher.Events:
			fmt.Println(event.Op, event.Name)
			if filepath.Base(event.Name) == "last" {
				return
			}
		case err := <-watcher.Errors:
			fmt.Println(err)
		}
	}
}
