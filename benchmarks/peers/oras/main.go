// Copies one image between an OCI layout and a registry with oras-go, the library that the oras program is made of.
//
//	oras-copy push|pull LAYOUT TAG HOST/PATH:TAG USER:PASSWORD
//
// For benchmarks/oci.py. Debian has the library (golang-oras-oras-go-dev) and no oras program; SSL_CERT_FILE names the CA.
package main

import (
	"context"
	"log"
	"os"
	"strings"

	"github.com/containerd/containerd/remotes/docker"
	"oras.land/oras-go/pkg/content"
	"oras.land/oras-go/pkg/oras"
)

func main() {
	if len(os.Args) != 6 {
		log.Fatal("usage: oras-copy push|pull LAYOUT TAG HOST/PATH:TAG USER:PASSWORD")
	}
	act, folder, tag, place, login := os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5]
	layout, err := content.NewOCI(folder)
	if err != nil {
		log.Fatal(err)
	}
	credentials := func(string) (string, string, error) {
		user, password, _ := strings.Cut(login, ":")
		return user, password, nil
	}
	registry := content.Registry{Resolver: docker.NewResolver(docker.ResolverOptions{
		Hosts: docker.ConfigureDefaultRegistries(
			// Without this it would speak plain HTTP to a registry on this machine.
			docker.WithPlainHTTP(func(string) (bool, error) { return false, nil }),
			docker.WithAuthorizer(docker.NewDockerAuthorizer(docker.WithAuthCreds(credentials))),
		),
	})}
	if act == "push" {
		_, err = oras.Copy(context.Background(), layout, tag, registry, place)
	} else {
		// One layer after the other: its layout locks by tag, so two at once fail.
		_, err = oras.Copy(context.Background(), registry, place, layout, tag, oras.WithPullByBFS)
		if err == nil {
			err = layout.SaveIndex()
		}
	}
	if err != nil {
		log.Fatal(err)
	}
}
